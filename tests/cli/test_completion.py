"""What a shell is given to complete a word: asked as the script does that `--install-completion` puts into bash."""

from pathlib import Path

import pytest
from conftest import Cli
from helpers import write_job


@pytest.fixture
def queue() -> Path:
    """The default queue, with a job."""
    return write_job(Path("training_queue/digits-a.json")).parent


def completed(cli: Cli, *words: str) -> list[str]:
    """What there is for the last of these words."""
    line = " ".join(["accel-train", *words])
    # The program has the name 0 in the fork server.
    asked = cli(_0_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words)))
    assert asked.stderr == ""
    return asked.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("sta",), ["status"]),
        (("show", "dig"), ["digits-a"]),
        (("hold", "dig"), ["digits-a"]),
        (("logs", "dig"), ["digits-a"]),
        (("evaluate", "--architecture", "resnet3"), ["resnet34"]),
        (("sweep", "digits-a", "--set", "cutmix.a"), ["cutmix.alpha="]),
        (("sweep", "digits-a", "--set", "see"), ["seed="]),
        (("sweep", "digits-a", "--set", "nothing"), []),
    ],
)
def test_a_word_is_completed(queue: Path, cli: Cli, words: tuple[str, ...], found: list[str]) -> None:
    assert completed(cli, *words) == found


def test_runs_are_completed_by_the_folders_that_lead_to_them(cli: Cli) -> None:
    run = Path("models/small_cnn/a")
    run.mkdir(parents=True)
    (run / "config.json").write_text("{}")
    for verb in ("evaluate", "compare", "plot", "export", "features", "probe", "leet"):
        assert completed(cli, verb, "models/sm") == ["models/small_cnn/"], verb
    assert completed(cli, "evaluate", "models/small_cnn/") == ["models/small_cnn/a"]
