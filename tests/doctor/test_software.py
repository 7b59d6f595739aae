"""Libraries, the user's default of `accelerate config`, and a real launch."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

from accel_trainer.core.processes import Program
from accel_trainer.doctor import findings as probe_module
from accel_trainer.doctor import software
from accel_trainer.doctor.findings import Grade, Probe, ProbeFailed
from accel_trainer.launch import call_worker as call_worker_module
from accel_trainer.launch import trial
from accel_trainer.launch.machine import Machine, this_machine
from accel_trainer.launch.nvidia import Gpu, answer_of_driver

CPU = Machine((), has_mps=False, cores=2)
TWO = Machine((Gpu("0", "A100", "40 GiB"), Gpu("1", "A100", "40 GiB")), has_mps=False, cores=2)


def test_the_version_of_python_is_named_first() -> None:
    assert (
        software.python().message.endswith(sys.executable)
        or "not in a virtual environment" in software.python().message
    )


# -- packages ---------------------------------------------------------------------------------------------------------


def test_what_is_installed_here_is_new_enough() -> None:
    finding = software.packages()
    assert finding.grade is Grade.OK, finding
    assert f"torch {metadata.version('torch')}, torchvision " in finding.message


@pytest.mark.parametrize(
    ("requirement", "said"),
    [
        ("no-such-package>=1", "no-such-package is not installed"),
        ("numpy>=999", f"numpy is {metadata.version('numpy')}, >=999 is needed"),
        ("timm>=999 ; extra == 'timm'", f"timm is {metadata.version('timm')}, >=999 is needed"),
        ("no-such-package>=1 ; extra == 'timm'", None),
        ("numpy>=999 ; extra == 'test'", None),
        ("numpy>=999 ; python_version < '3'", None),
    ],
)
def test_what_is_missing_or_too_old_is_named(requirement: str, said: str | None) -> None:
    finding = software.packages([requirement, "pillow>=1"])
    assert (finding.grade is Grade.OK) == (said is None)
    if said is not None:
        assert finding.message == said


def test_a_checkout_that_is_not_installed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "DISTRIBUTION", "no-such-package")
    assert software.packages().grade is Grade.WARNING


@pytest.fixture
def on_path(own_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the current folder go before what is installed, since the user says so."""
    monkeypatch.setenv("PYTHONPATH", str(own_environment))


# -- torch ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_path")
def test_torch_that_cannot_be_imported_is_one_line() -> None:
    Path("torchvision.py").write_text("raise ImportError('operator torchvision::nms does not exist')")
    with Probe(Program.PROBE_TORCH.command()) as probe:
        finding = software.torch_import(probe)
    assert finding.grade is Grade.PROBLEM
    assert finding.message.endswith("ImportError: operator torchvision::nms does not exist")


@pytest.mark.parametrize(
    ("kernel", "partial_jpegs", "said"),
    [
        (None, None, "by the compiled kernel"),
        ("not compiled", "not compiled", "the compiled kernel is not used: not compiled"),
        (None, "image.so has no libjpeg-turbo", "JPEGs are decoded whole: image.so has no libjpeg-turbo"),
    ],
)
def test_how_images_are_loaded_is_one_line(kernel: str | None, partial_jpegs: str | None, said: str) -> None:
    finding = software.image_loading({"kernel": kernel, "partial_jpegs": partial_jpegs})
    assert finding.grade is (Grade.OK if kernel is partial_jpegs is None else Grade.WARNING)
    assert said in finding.message


@pytest.mark.usefixtures("on_path")
@pytest.mark.parametrize(
    ("code", "limit_s", "said"),
    [
        ("import time; time.sleep(60)", 1, "no answer within 1 s"),
        ("import os; os.kill(os.getpid(), 11)", 60, "it was ended by signal 11"),
        ("raise SystemExit(3)", 60, "it has ended with exit code 3 and no output"),
        ("print('hello')", 60, "it has ended with exit code 0 and no output"),
        ("print(); raise ValueError('one')", 60, "ValueError: one"),
    ],
)
def test_a_probe_that_breaks_is_reported_in_one_line(code: str, limit_s: float, said: str) -> None:
    Path("broken_probe.py").write_text(code)
    with Probe([sys.executable, "-m", "broken_probe"]) as probe, pytest.raises(ProbeFailed, match=said):
        probe.answer(limit_s)


def test_a_probe_that_cannot_start_reports_it_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(probe_module.tempfile, "TemporaryFile", full)
    with Probe(Program.PROBE_TORCH.command()) as probe, pytest.raises(ProbeFailed, match="No space left"):
        probe.answer(1)


@pytest.mark.usefixtures("on_path")
def test_the_last_line_of_a_probe_is_its_answer() -> None:
    Path("talking_probe.py").write_text("""print('imported'); print('{"a": 1}')""")
    with Probe([sys.executable, "-m", "talking_probe"]) as probe:
        assert probe.answer(30) == probe.answer(30) == {"a": 1}


# -- accelerate config ------------------------------------------------------------------------------------------------


def write_default(text: str) -> None:
    path = Path("~/.cache/huggingface/accelerate/default_config.yaml").expanduser()
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_a_missing_default_accelerate_file_is_good() -> None:
    assert software.accelerate_default(TWO).message == "no default file; jobs use the detected hardware"


@pytest.mark.parametrize(
    ("text", "machine", "grade", "said"),
    [
        ("distributed_type: MULTI_GPU\nnum_processes: 2\n", TWO, Grade.OK, "2 processes; GPUs: 2"),
        ("distributed_type: 'NO'\nnum_processes: 1\ngpu_ids: '1'\n", TWO, Grade.OK, "1 process; GPUs: 1"),
        ("distributed_type: MULTI_GPU\nnum_processes: 4\nnum_machines: 2\n", TWO, Grade.OK, "4 processes"),
        ("distributed_type: MULTI_GPU\nnum_processes: 2\nuse_cpu: true\n", CPU, Grade.OK, "2 processes on the CPU"),
        ("distributed_type: MULTI_GPU\nnum_processes: 4\n", TWO, Grade.PROBLEM, "4 processes, and GPUs for 2"),
        ("distributed_type: MULTI_GPU\nnum_processes: 2\n", CPU, Grade.PROBLEM, "2 processes, and GPUs for 0"),
        ("distributed_type: 'NO'\ngpu_ids: 0,5\n", TWO, Grade.PROBLEM, "gpu_ids: '0,5': not all of them exist"),
        ("distributed_type: 'NO'\nuse_cpu: true\n", TWO, Grade.WARNING, "on the CPU, though there are 2 GPUs"),
        ("distributed_type: FSDP\n", TWO, Grade.PROBLEM, "distributed_type: 'FSDP' is not supported"),
        ("distributed_type: MULTI_CPU\n", CPU, Grade.PROBLEM, "MULTI_CPU"),
        ("nonsense: [", TWO, Grade.PROBLEM, "is not YAML"),
    ],
)
def test_a_default_file_is_judged_by_what_is_there(text: str, machine: Machine, grade: Grade, said: str) -> None:
    write_default(text)
    finding = software.accelerate_default(machine)
    assert finding.grade is grade, finding
    assert said in finding.message
    assert "default_config.yaml" in finding.message


def test_a_misspelt_key_of_a_default_file_is_a_problem() -> None:
    write_default("distributed_type: 'NO'\nnum_proceses: 2\n")
    finding = software.accelerate_default(CPU)
    assert finding.grade is Grade.PROBLEM
    assert "num_proceses: is no key" in finding.message
    assert "did you mean 'num_processes'" in finding.message


# -- a real launch ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_launch_of_two_processes_works(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_of_driver.cache_clear()
    finding = software.trial_launch(this_machine())
    assert finding.grade is Grade.OK, finding
    assert finding.message == "2 processes on cpu by gloo" or this_machine() != CPU


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (call_worker_module.WorkerFailed("exit code 1"), "accelerate launch has failed: exit code 1"),
        ({"processes": 1, "sum": 1.0, "device": "cpu", "backend": None}, "2 processes do not work together"),
        ({"processes": 2, "sum": 1.0, "device": "cpu", "backend": "gloo"}, "2 processes do not work together"),
        (None, "no answer within"),
    ],
    ids=["fails", "alone", "wrong sum", "hangs"],
)
def test_a_launch_that_does_not_work_is_a_problem(monkeypatch: pytest.MonkeyPatch, told: object, said: str) -> None:
    async def answer(*_: object) -> object:
        if isinstance(told, Exception):
            raise told
        return told

    monkeypatch.setattr(trial, "worker_answer", answer)
    finding = software.trial_launch(CPU)
    assert finding.grade is Grade.PROBLEM
    assert said in finding.message


def test_a_launch_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LIMIT_S", 0.5)
    monkeypatch.setattr("accel_trainer.launch.command.Launch.argv", property(lambda self: ["sleep", "60"]))
    assert "no answer within" in software.trial_launch(CPU).message


def test_a_launch_of_several_machines_is_not_tried() -> None:
    write_default("distributed_type: MULTI_GPU\nnum_processes: 4\nnum_machines: 2\n")
    assert "not tried" in software.trial_launch(TWO).message
