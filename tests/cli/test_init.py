"""`accel-train init`: a folder to train in, from questions, flags, or the bundled example."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import REPOSITORY, said_by
from PIL import Image

from accel_trainer.api.new_folder import EXAMPLES, Images, check_architecture, find_images, first_job, name_of
from accel_trainer.cli import init as verb
from accel_trainer.config import Job, read_job

BUNDLED = REPOSITORY / "training_queue/examples"


@pytest.fixture
def flowers(own_environment: Path) -> Path:
    """A data set as a person has it: two classes of small pictures, 20 to train on in each."""
    folder = own_environment.parent / "some where" / "flowers"
    for split, number in {"train": 20, "val": 3}.items():
        for name in ("daisy", "tulip"):
            (folder / split / name).mkdir(parents=True)
            for one in range(number):
                Image.new("RGB", (40, 30), (10 * one, 90, 200)).save(folder / split / name / f"{one}.png")
    return folder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Terminal]:
    """Has a person at a terminal answer; gives what is shown there."""

    def answer(lines: str) -> Terminal:
        shown = Terminal()
        monkeypatch.setattr("sys.stdin", Terminal(lines))
        monkeypatch.setattr("sys.stdout", shown)
        monkeypatch.setattr("sys.stderr", shown)
        return shown

    return answer


def test_the_example_is_a_queue_and_bundled_jobs_with_the_commands_to_type(cli):
    result = cli("init", "my lab", "--example")
    assert (result.returncode, result.stderr) == (0, "")
    for name in EXAMPLES:
        assert (Path("my lab") / name).read_bytes() == (BUNDLED / name).read_bytes()
    assert "cd 'my lab'" in result.stdout
    assert f"accel-train add {' '.join(EXAMPLES)}" in result.stdout
    assert "accel-train run-queue" in Path("my lab/README.md").read_text()
    assert cli("status", "--queue", "my lab/training_queue").returncode == 0


def test_nothing_that_is_there_is_replaced(cli):
    Path("README.md").write_text("mine")
    result = cli("init", "--example")
    assert result.returncode == 0
    assert "kept README.md, as it was" in result.stdout
    assert "  cd " not in result.stdout, "it is the current folder"
    assert Path("README.md").read_text() == "mine"
    Path(EXAMPLES[0]).write_text("changed")
    Path(EXAMPLES[1]).unlink()
    Path("training_queue/mine.json").write_text("{}")
    again = cli("init", "--example")
    assert again.returncode == 2
    assert again.stderr == f"error: {EXAMPLES[0]}: is there already, and nothing is replaced; name another folder\n"
    assert Path(EXAMPLES[0]).read_text() == "changed"
    assert not Path(EXAMPLES[1]).exists(), "nothing is written where something is in the way"
    Path(EXAMPLES[0]).unlink()
    assert "kept training_queue, as it was" in cli("init", "--example").stdout
    assert Path("training_queue/mine.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [],
            "error: --dataset: is needed where there is no terminal to ask at; give a folder with train/ and val/",
        ),
        (["--example", "--epochs", "3"], "--epochs: not with --example"),
        (["--dataset", "nowhere/pets"], "nowhere/pets"),
        (["--dataset", "digits", "--architecture", "resnet81"], "did you mean 'resnet18'"),
        (["file", "--example"], "file: is a file; name a folder"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(cli, words, line):
    Path("file").touch()
    result = cli("init", *words)
    assert result.returncode == 2
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["file"]


@pytest.mark.slow
def test_the_job_of_flags_is_valid_wherever_it_is_typed(cli, flowers):
    result = cli("init", "lab", "--dataset", f"{flowers}", "--architecture", "small_cnn", "--epochs", "4")
    assert (result.returncode, result.stderr) == (0, "")
    assert "small_cnn-flowers.json: small_cnn with" in result.stdout
    job = read_job(Path("lab/small_cnn-flowers.json"))
    assert (job.dataset, job.data_root, job.num_epochs) == ("flowers", str(flowers.parent), 4)
    checked = cli("validate", "lab/small_cnn-flowers.json")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "2 classes, 40 training images, 10 steps per epoch, 4 epochs, 6 validation images" in checked.stdout


def test_a_person_is_asked_until_each_answer_is_right(answering, flowers):
    shown = answering(f"nowhere/at/all\n{flowers}\nresnet81\nsmall_cnn\nmany\n0\n7\n")
    job = verb.asked_parameters(None, None, None)
    assert (job["architecture"], job["dataset"], job["num_epochs"]) == ("small_cnn", "flowers", 7)
    said = shown.getvalue()
    assert said.count("Where are your images") == 2
    assert said.count("How many epochs") == 3
    assert "did you mean 'resnet18'" in said
    assert "error: 'many' is not a number of epochs, such as 30" in said


def test_enter_takes_the_defaults_and_flags_are_not_asked_for(answering):
    answering("\n\n\n")
    job = verb.asked_parameters(None, None, None)
    assert (job["architecture"], job["dataset"], job["num_epochs"]) == ("resnet18", "digits", 5)
    shown = answering("\n")
    assert verb.asked_parameters("digits", "small_cnn", None)["architecture"] == "small_cnn"
    assert shown.getvalue().count("?") == 1


def test_a_data_set_is_named_by_its_folder_its_name_or_hugging_face(flowers, monkeypatch):
    assert find_images(f" {flowers} ") == Images("flowers", flowers.parent, 40)
    monkeypatch.chdir(flowers.parent)
    assert find_images("flowers") == Images("flowers", flowers.parent, 40)
    assert find_images("digits") == Images("digits", None, 1347)
    assert find_images("hf:owner/pets:small") == Images("hf:owner/pets:small")
    assert said_by(find_images, " ") == "dataset: is empty; name a folder with train/ and val/"
    assert said_by(find_images, "~/nowhere/flowers").startswith("dataset: ")


@pytest.mark.parametrize(("number", "size"), [(None, 64), (1_000_000, 64), (512, 64), (511, 32), (40, 4), (3, 2)])
def test_the_batch_suits_the_number_of_images(number, size):
    job = first_job(Images("pets", None, number), "resnet18", 30)
    assert job["batch_size"] == size
    assert Job(name="job", **job).batch_size == size


@pytest.mark.parametrize(
    ("architecture", "dataset", "name"),
    [
        ("timm:convnext_tiny", "hf:owner/pets:small", "convnext_tiny-pets-small"),
        ("resnet18", "my photographs", "resnet18-my-photographs"),
    ],
)
def test_a_job_is_named_by_its_model_and_images(architecture, dataset, name):
    assert name_of({"architecture": architecture, "dataset": dataset}) == name


def test_an_architecture_that_cannot_be_built_without_memory_is_one_too():
    check_architecture("inception_v3", 224)
    check_architecture("swin_t", 224)


def test_the_file_has_a_line_for_each_parameter(cli):
    assert cli("init", "--dataset", "digits", "--architecture", "small_cnn").returncode == 0
    lines = Path("small_cnn-digits.json").read_text().splitlines()
    assert lines[1:3] == ['  "architecture": "small_cnn",', '  "dataset": "digits",']
    assert json.loads("\n".join(lines))["scheduler_args"] == {"T_max": 5}
