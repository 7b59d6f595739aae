"""`accel-train evaluate --degrade`: how its words are read, and what is printed of a plan."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import finish
from typer.testing import CliRunner, Result

from accel_trainer.api.trained_run import Run
from accel_trainer.cli.app import app
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.launch.call_worker import WorkerCall
from accel_trainer.measures.trials_file import read_trials


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finish(tmp_path_factory.mktemp("trained") / "run", name="digits")


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch, no_plots: None) -> list[EvaluationPlan]:
    """The plans that are launched, from now on; each is carried out in this process."""
    found = list[EvaluationPlan]()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    @contextmanager
    def launch_plan(run: Run, plan: EvaluationPlan, **options: Any) -> Iterator[WorkerCall]:
        found.append(plan)
        yield WorkerCall(json.loads(json.dumps(run.evaluate_plan(plan).as_row())), Path("unused"))

    monkeypatch.setattr(Run, "launch_plan", launch_plan)
    return found


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


@pytest.mark.parametrize(
    ("words", "degradations"),
    [
        ("--degrade noise blur", ["noise", "blur"]),
        ("--degrade noise,blur", ["noise", "blur"]),
        ("--degrade=noise,blur", ["noise", "blur"]),
        ("--degrade noise --degrade blur", ["noise", "blur"]),
        ("--degrade noise --weights best --degrade blur", ["noise", "blur"]),
        ("--degrade noise/gaussian --levels 1 0.5", [("noise/gaussian", [1, 0.5])]),
        ("--degrade noise/gaussian --levels none,0.5", [("noise/gaussian", ["none", 0.5])]),
        ("--degrade geirhos/high-pass --levels inf", [("geirhos/high-pass", ["inf"])]),
        ("--degrade geirhos/contrast --levels c05", [("geirhos/contrast", ["c05"])]),
        ("--name as-they-are", []),
    ],
)
def test_words_up_to_the_next_option_are_names(
    monkeypatch: pytest.MonkeyPatch, trained: Run, words: str, degradations: list[Any]
) -> None:
    found = list[EvaluationPlan]()

    @contextmanager
    def note(run: Run, plan: EvaluationPlan, **options: Any) -> Iterator[WorkerCall]:
        found.append(plan)
        yield WorkerCall(None, Path("unused"))

    monkeypatch.setattr(Run, "launch_plan", note)
    for given in ([trained.path, *words.split()], [*words.split(), "--", trained.path]):
        assert run(*given).output == "the first machine has the result\n"
    (before, after) = found
    assert (
        before
        == after
        == EvaluationPlan.parse(
            {
                "degradations": [
                    one if isinstance(one, str) else dict(zip(("name", "levels"), one, strict=True))
                    for one in degradations
                ],
                "name": "as-they-are" if not degradations else None,
            }
        )
    )


def test_a_plan_is_printed_and_its_trials_are_copied(trained: Run, plans: list[EvaluationPlan], tmp_path: Path) -> None:
    file = tmp_path / "trials.parquet"
    words = (trained.path, "--degrade", "blur", "--levels", "0", "4", "--trials", file, "--probabilities", "2")
    ended = run(*words)
    assert ended.exit_code == 0, ended.output
    header, neutral, blurred, last = ended.stdout.splitlines()
    assert header.split() == ["degradation", "level", "accuracy", "(%)", "low", "high", "n"]
    assert neutral.split()[:2] == ["blur", "0"]
    assert blurred.split()[:2] == ["blur", "4"]
    folder = trained.path / "evaluations" / plans[0].folder_name
    assert last == f"{folder}: 135 images"
    assert file.read_bytes() == (folder / "trials.parquet").read_bytes()
    trials = read_trials(file)
    assert float(neutral.split()[2]) == pytest.approx(100 * trials.correct[:135].mean(), abs=0.005)
    assert run(*words).stdout.splitlines()[-1] == f"{folder}: 135 images, complete before"
    row = json.loads(run(*words, "--json").stdout)
    assert (row["images"], row["computed"], len(row["figures"])) == (135, 0, 2)


def test_trials_of_images_as_they_are(trained: Run, plans: list[EvaluationPlan], tmp_path: Path) -> None:
    file = tmp_path / "trials.parquet"
    ended = run(trained.path, "--trials", file)
    assert [line.split()[0] for line in ended.stdout.splitlines()][:1] == ["accuracy"]
    assert len(read_trials(file)) == 135


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--levels 1", "`levels`: only with `degrade` or `trials`"),
        ("--probabilities 5", "`probabilities`: only with `degrade` or `trials`"),
        ("--trials x --levels 1", "`levels`: only with `degrade`"),
        ("--degrade noise --probabilities some", "`probabilities`: \"some\" is not allowed: it should be 'all' or"),
        ("--degrade noise --probabilities -1", "`probabilities`: -1 is not allowed"),
        ("--degrade noise --name ../x", "`name`: '../x' cannot be a folder's name"),
        ("--degrade noise noise", "`degrade`: has one value twice"),
        ("--degrade noise --trials gone/x.parquet", "`trials`: gone/x.parquet: no folder gone"),
    ],
)
def test_mistakes_are_a_line_before_anything_is_launched(trained: Run, words: str, line: str) -> None:
    ended = run(trained.path, *words.split())
    assert ended.exit_code != 0
    assert str(ended.exception).startswith(line)


def test_a_flag_without_a_name_is_refused(trained: Run) -> None:
    for words in (["--degrade"], ["--degrade", "--cpu"]):
        assert str(run(trained.path, *words).exception) == "--degrade: give one word or more after it"
