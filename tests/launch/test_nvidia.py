"""Which GPUs are found, on every kind of machine that a driver may make of one; and what becomes of a job there."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import REPOSITORY, said_by, wait_until
from launch.fake_driver import FAILING, HANGING, HEALTHY, MIG, NO_DEVICES, FakeDriver, compiled

from accel_trainer.api import in_process
from accel_trainer.config import Job
from accel_trainer.core import tools
from accel_trainer.core.errors import UserError
from accel_trainer.core.launched import GPU_VARIABLE, TOKEN_VARIABLE
from accel_trainer.core.lease import Owner
from accel_trainer.launch import machine as machine_module
from accel_trainer.launch import nvidia
from accel_trainer.launch.accelerate_config import MachineUnusable, TooFewGpus, UnusableHere
from accel_trainer.launch.command import LaunchOptions, num_processes_wanted, plan_launch
from accel_trainer.launch.gpu_memory import GpuMemory
from accel_trainer.launch.machine import Machine, this_machine, torch_builds
from accel_trainer.launch.nvidia import Found, Gpu, answer_of_driver, find_gpus
from accel_trainer.launch.visible import by_uuid, hides_all, visible_gpus

JOB = Job(architecture="resnet18")
TWO = ["0: NVIDIA A100 (32768 MiB)", "1: NVIDIA A100 (32768 MiB)"]
PARTS = ["0:0: NVIDIA A100 MIG 3g.20gb (16384 MiB)", "0:2: NVIDIA A100 MIG 3g.20gb (16384 MiB)", TWO[1]]
PARTS_BY_SMI = ["0:0: MIG 3g.20gb ([N/A])", "0:2: MIG 3g.20gb ([N/A])", TWO[1]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Path) -> Iterator[FakeDriver]:
    monkeypatch.setattr(machine_module, "GPU_DEVICES", ())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answer_of_driver.cache_clear()
    yield FakeDriver(tmp_path / "root", monkeypatch, library)
    answer_of_driver.cache_clear()


# -- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nvml", "smi", "nodes", "gpus", "problem"),
    [
        ("healthy", HEALTHY, True, TWO, None),
        ("healthy", None, True, TWO, None),  # a container without nvidia-smi
        ("healthy", FAILING, True, TWO, None),
        ("MIG", None, True, PARTS, None),
        ("no memory", None, True, ["0: NVIDIA A100 ([N/A])", "1: NVIDIA A100 ([N/A])"], None),
        ("lost", None, True, TWO[1:], None),
        ("all lost", None, True, [], "GPU 0: GPU is lost; GPU 1: GPU is lost"),
        ("empty", None, True, [], "GPU 0 is in MIG mode without a device"),
        ("none", None, True, [], None),  # those of the machine are not for this process, as in a job without any
        ("failing", None, True, [], "NVIDIA's driver: Driver Not Loaded, and no nvidia-smi, but "),
        ("failing", FAILING, True, [], "NVIDIA's driver: Driver Not Loaded; nvidia-smi: NVIDIA-SMI has failed"),
        ("failing", HEALTHY, True, TWO, None),
        ("crashing", HEALTHY, True, TWO, None),
        ("crashing", None, True, [], "NVIDIA's driver: exit code -6"),
        (None, HEALTHY, True, TWO, None),
        (None, HEALTHY, False, TWO, None),
        (None, MIG, True, PARTS_BY_SMI, None),
        (None, NO_DEVICES, True, [], None),
        (None, FAILING, True, [], "nvidia-smi: NVIDIA-SMI has failed because it could not communicate"),
        (None, FAILING, False, [], None),  # a machine without GPUs, on which the tools are installed
        (None, None, True, [], "NVIDIA's driver: no libnvidia-ml.so.1, and no nvidia-smi, but "),
        (None, None, False, [], None),
    ],
)
def test_the_driver_is_asked_by_its_library_and_then_by_its_tool(
    driver: FakeDriver, nvml: str | None, smi: str | None, nodes: bool, gpus: list[str], problem: str | None
) -> None:
    if nvml is not None:
        driver.nvml(nvml)
    if smi is not None:
        driver.smi(smi)
    if nodes:
        driver.nodes()
    found = find_gpus()
    assert [str(gpu) for gpu in found.gpus] == gpus
    assert (found.problem is None) if problem is None else (found.problem or "").startswith(problem)


@pytest.mark.parametrize(("nvml", "smi"), [("hanging", None), ("hanging", HEALTHY), (None, HANGING)])
def test_a_driver_that_hangs_is_waited_for_once_and_not_for_long(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, nvml: str | None, smi: str | None
) -> None:
    asked: list[str] = []

    def counted(command: list[str], limit_s: float) -> str:
        asked.append(command[-1])
        return tools.tool_output(command, 0.7)

    monkeypatch.setattr(nvidia, "tool_output", counted)
    driver.nodes()
    if nvml is not None:
        driver.nvml(nvml)
    if smi is not None:
        driver.smi(smi)
    found = find_gpus()
    assert found.gpus == ()
    assert "no answer within 0.7 s" in (found.problem or "")
    assert len(asked) == (1 if nvml else 2)


def asked_of(folder: Path) -> str:
    """A tool that hangs, and notes in `asked` that it was started."""
    return f"echo x >> {folder}/asked; {HANGING}"


def test_a_command_waits_once_for_a_driver_that_hangs_and_says_so(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(nvidia, "QUIET_S", 0.1)
    monkeypatch.setattr(nvidia, "LIMIT_S", 1.0)
    driver.nodes()
    driver.smi(asked_of(tmp_path))
    for _ in range(2):
        for machine in (this_machine(), this_machine(cpu=False)):
            assert machine.unusable is not None
            assert "nvidia-smi: no answer within 1 s" in machine.unusable.message
    assert [record.message for record in caplog.records] == [
        "waiting for NVIDIA's driver to list its GPUs, for 1 s at most (--cpu does without)"
    ]
    before = answer_of_driver()
    for name, value in nvidia.passed_on().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(TOKEN_VARIABLE, Owner.new().token)
    answer_of_driver.cache_clear()
    assert answer_of_driver() == before, "a process that this one has started does not ask either"
    assert (tmp_path / "asked").read_text().split() == ["x"]
    monkeypatch.delenv(TOKEN_VARIABLE)
    answer_of_driver.cache_clear()
    assert answer_of_driver() == before
    assert (tmp_path / "asked").read_text().split() == ["x", "x"], "what is left over in a shell counts for nothing"


@pytest.mark.parametrize("machine", ["healthy", "MIG", "lost"])
def test_what_a_driver_has_answered_is_passed_on_whole_and_nothing_is_said(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, machine: str
) -> None:
    driver.nodes()
    driver.nvml(machine)
    found = answer_of_driver()
    assert found.gpus
    assert caplog.records == []
    for name, value in nvidia.passed_on().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(TOKEN_VARIABLE, Owner.new().token)
    answer_of_driver.cache_clear()
    assert answer_of_driver() == found


def test_a_driver_that_is_not_loaded_is_a_problem_where_a_gpu_is_plugged_in(driver: FakeDriver) -> None:
    driver.smi(FAILING)
    driver.plugged_in()
    assert "NVIDIA-SMI has failed" in (find_gpus().problem or "")


def test_where_no_trace_of_a_driver_is_nothing_is_started(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.nvml("healthy")
    monkeypatch.setattr(nvidia, "tool_output", None)
    assert find_gpus() == Found()


NOT_GIVEN = r"none of NVIDIA's \(0000:01:00.0\) is given to this process; ask for it: a container by `--gpus all`"


@pytest.mark.parametrize("has_sysfs", [True, False], ids=["on the bus", "by its driver"])
def test_a_container_to_which_no_gpu_is_given_does_not_train_on_the_cpu(driver: FakeDriver, has_sysfs: bool) -> None:
    if has_sysfs:
        driver.plugged_in(driver="nvidia")
    else:
        (driver.root / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    with pytest.raises(MachineUnusable, match=NOT_GIVEN):
        plan_launch(JOB, LaunchOptions(), this_machine())
    assert plan_launch(JOB, LaunchOptions(cpu=True), this_machine(cpu=True)).is_on_cpu


@pytest.mark.parametrize(("nvml", "smi"), [("none", None), (None, NO_DEVICES), (None, "")])
def test_nor_does_a_job_to_which_the_driver_lists_none(driver: FakeDriver, nvml: str | None, smi: str | None) -> None:
    driver.nodes()
    driver.plugged_in(driver="nvidia")
    if nvml is not None:
        driver.nvml(nvml)
    if smi is not None:
        driver.smi(smi)
    with pytest.raises(MachineUnusable, match=NOT_GIVEN):
        plan_launch(JOB, LaunchOptions(), this_machine())


@pytest.mark.parametrize("bound", ["nouveau", None])
def test_a_gpu_without_its_makers_driver_is_told(driver: FakeDriver, bound: str | None) -> None:
    driver.plugged_in(kind="0x030000", driver=bound)
    told = f"is not that of the GPU .0000:01:00.0: {bound or 'none'}.; install NVIDIA's driver, or train on the CPU by"
    with pytest.raises(MachineUnusable, match=told):
        plan_launch(JOB, LaunchOptions(), this_machine())


@pytest.mark.parametrize(
    "device",
    [
        {"driver": "vfio-pci"},  # a virtual machine's
        {"driver": "pciback"},
        {"kind": "0x040300"},  # its sound
        {"vendor": "0x102b", "driver": "mgag200"},
        {"vendor": "0x1a03", "driver": "ast"},
        {"vendor": "0x1002", "driver": "radeon"},
        {"vendor": "0x8086", "address": "0000:00:02.0", "driver": "i915"},
    ],
    ids=str,
)
def test_what_only_shows_a_picture_or_is_given_away_is_no_gpu(driver: FakeDriver, device: dict[str, str]) -> None:
    driver.plugged_in(**device)
    assert this_machine().unusable is None
    assert plan_launch(JOB, LaunchOptions(), this_machine()).is_on_cpu


def test_what_the_library_says_of_memory_and_of_cuda_is_kept(driver: FakeDriver) -> None:
    driver.nodes()
    driver.nvml("MIG")
    found = find_gpus()
    assert found.cuda == "12.4"
    assert [(gpu.used, gpu.gpu_uuid, gpu.instances) for gpu in found.gpus] == [
        (0.0, "GPU-8f6a", (1, 0)), (0.0, "GPU-8f6a", (3, 0)), (0.5, "", ()),
    ]  # fmt: skip


def test_a_tool_that_cannot_be_killed_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.os, "killpg", lambda *_: None)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        tools.tool_output(["sleep", "3"], 0.2)


# -- CUDA_VISIBLE_DEVICES -------------------------------------------------------------------------------------------

FOUR = [Gpu(str(index), "A100", "", uuid) for index, uuid in enumerate(("GPU-8f6a", "GPU-8f6b", "GPU-11", "GPU-12"))]
VALUES = ["0", "1,0", " 2 , 3", "0,1,7,2", "7,0", "0,-1,1", "-1", "", "0,0", "1,1,2", "2,x,1", "GPU-8f6", "GPU-8f6b"]
VALUES += ["GPU-8f6a,GPU-12", "GPU-1", "GPU-11,GPU-zz,GPU-12", "GPU-11,0", "0,GPU-11", "GPU-11,GPU-11", "1gpu2,2ampere"]
VALUES += ["GPU-8f6a,GPU-8f6a1", "+1", "00", "01,2", "abc", ",0", "0,"]


@pytest.mark.parametrize("value", VALUES)
def test_what_cuda_shows_is_what_torch_counts(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch counts without the driver's runtime in the same way."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: len(FOUR))
    monkeypatch.setattr(torch.cuda, "_raw_device_uuid_nvml", lambda: [gpu.uuid for gpu in FOUR])
    found = visible_gpus(FOUR, value)
    assert len(found) == torch.cuda._device_count_nvml()
    chosen = torch.cuda._parse_visible_devices()
    if chosen and isinstance(chosen[0], int):
        assert [gpu.index for gpu in found] == [str(index) for index in chosen[: len(found)]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("MIG-00-c0ffee", ["0:0"]),
        ("MIG-02", ["0:2"]),
        ("MIG-0", []),  # of two
        ("MIG-GPU-8f6a/3/0", ["0:2"]),
        ("MIG-GPU-8f6a/9/0", []),
        ("MIG-GPU-other/3/0", []),
        ("MIG-02-c0ffee,MIG-00-c0ffee", ["0:2", "0:0"]),
        ("0", ["0:0"]),
        ("GPU-8f6a", ["0:0"]),
        ("1", ["1"]),
    ],
)
def test_mig_devices_are_shown_by_any_of_their_names(driver: FakeDriver, value: str, expected: list[str]) -> None:
    driver.nodes()
    driver.nvml("MIG")
    assert [gpu.index for gpu in visible_gpus(find_gpus().gpus, value)] == expected


@pytest.mark.parametrize("value", ["", " ", "-1", "-1,0", "none", "NoDevFiles", "void"])
def test_who_hides_all_gpus_has_asked_for_the_cpu(driver: FakeDriver, value: str, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    driver.nodes()
    driver.nvml("failing")
    assert hides_all(value)
    assert plan_launch(JOB, LaunchOptions(), this_machine()).is_on_cpu


@pytest.mark.parametrize("value", ["7", "GPU-zz", "0,0", "MIG-1", "two"])
def test_who_means_to_show_gpus_and_shows_none_is_told(driver: FakeDriver, value: str, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    driver.nodes()
    driver.nvml("healthy")
    with pytest.raises(MachineUnusable, match=f"CUDA_VISIBLE_DEVICES='{value}' shows none of the GPUs, 0: NVIDIA A100"):
        plan_launch(JOB, LaunchOptions(), this_machine())


@pytest.mark.parametrize(
    ("value", "shown", "count"),
    [(" 1 , 0 ", "1,0", 2), ("GPU-8f6b , GPU-8f6a", "1,0", 2), ("GPU-8f6b", "1", 1), ("1,7,0", "1", 1)],
)
def test_a_launch_shows_what_was_meant_in_a_form_that_every_cuda_reads(
    driver: FakeDriver, value: str, shown: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    driver.nodes()
    driver.nvml("healthy")
    launch = plan_launch(JOB, LaunchOptions(), this_machine())
    assert (launch.num_processes, launch.environment["CUDA_VISIBLE_DEVICES"]) == (count, shown)
    assert launch.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_number_of_different_gpus_stays_as_cuda_counts_them(driver: FakeDriver, monkeypatch) -> None:
    mixed = Found((Gpu("0", "T400", "2 GiB", "GPU-a"), Gpu("1", "A100", "40 GiB", "GPU-b")))
    monkeypatch.setattr(machine_module, "answer_of_driver", lambda: mixed)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert "CUDA_VISIBLE_DEVICES" not in plan_launch(JOB, LaunchOptions(), this_machine()).environment
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert plan_launch(JOB, LaunchOptions(), this_machine()).environment["CUDA_VISIBLE_DEVICES"] == "0"


# -- never the CPU without a word -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nvml", "smi"), [("failing", None), ("failing", FAILING), (None, FAILING), ("all lost", None)]
)
def test_a_job_stops_where_a_gpu_is_there_and_its_driver_does_not_answer(
    driver: FakeDriver, nvml: str | None, smi: str | None, tmp_path: Path
) -> None:
    driver.nodes()
    if nvml is not None:
        driver.nvml(nvml)
    if smi is not None:
        driver.smi(smi)
    told = "GPUs that are there cannot be used: .*; repair the driver, .*, or train on the CPU by `cpu`"
    for call in (plan_launch, num_processes_wanted):
        with pytest.raises(MachineUnusable, match=told):
            call(JOB, LaunchOptions(), this_machine())
    with pytest.raises(MachineUnusable, match=told):
        plan_launch(JOB, LaunchOptions(config=REPOSITORY / "accelerate_configs/single_gpu.yaml"), this_machine())
    asked = LaunchOptions(cpu=True)
    assert plan_launch(JOB, asked, this_machine(cpu=True)).is_on_cpu
    assert plan_launch(JOB, asked, this_machine()).is_on_cpu
    on_cpu = JOB.model_copy(update={"accelerate_config": str(REPOSITORY / "accelerate_configs/cpu.yaml")})
    assert plan_launch(on_cpu, LaunchOptions(), this_machine()).is_on_cpu


@pytest.mark.parametrize(("builds", "is_told"), [({"cuda": None}, True), ({"cuda": "13.0"}, False), (None, False)])
def test_a_torch_without_cuda_is_no_reason_to_train_on_the_cpu(
    driver: FakeDriver, builds: dict[str, str | None] | None, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "torch_builds", lambda: builds)
    driver.nodes()
    driver.nvml("healthy")
    if not is_told:
        assert not plan_launch(JOB, LaunchOptions(), this_machine()).is_on_cpu
        return
    with pytest.raises(
        MachineUnusable, match="2 of NVIDIA's GPUs, and torch was built without CUDA; install torch for"
    ):
        plan_launch(JOB, LaunchOptions(), this_machine())


def amds(driver: FakeDriver) -> None:
    driver.kfd(memory=2**36)


def amds_in_a_container(driver: FakeDriver) -> None:
    driver.kfd(memory=2**36, has_node=False)


def amds_unlisted(driver: FakeDriver) -> None:
    (driver.root / "dev").mkdir()
    (driver.root / "dev/kfd").touch()


def intels(driver: FakeDriver) -> None:
    driver.plugged_in("0x8086", "0000:03:00.0", "0x038000", "xe")


OTHERS = [(amds, "hip", "AMD's"), (amds_in_a_container, "hip", "AMD's"), (amds_unlisted, "hip", "AMD's")]
OTHERS += [(intels, "xpu", "Intel's")]
SINGLE = REPOSITORY / "accelerate_configs/single_gpu.yaml"


@pytest.mark.parametrize(("plug_in", "build", "whose"), OTHERS)
@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_a_gpu_of_another_maker_is_not_passed_over_by_a_torch_without_it(
    driver: FakeDriver, plug_in: Callable[[FakeDriver], None], build: str, whose: str, cuda: str | None, monkeypatch
) -> None:
    plug_in(driver)
    monkeypatch.setattr(machine_module, "torch_builds", lambda: {"cuda": cuda, "hip": None, "xpu": None})
    told = f"a GPU of {whose} is there .*, and torch was built without .*; install torch for .*, or train on the CPU"
    for options in (LaunchOptions(), LaunchOptions(config=SINGLE)):
        with pytest.raises(MachineUnusable, match=told):
            plan_launch(JOB, options, this_machine())
    assert plan_launch(JOB, LaunchOptions(cpu=True), this_machine()).is_on_cpu


@pytest.mark.parametrize(("plug_in", "build", "whose"), OTHERS)
def test_one_that_is_not_counted_is_trained_on_by_a_config(
    driver: FakeDriver, plug_in: Callable[[FakeDriver], None], build: str, whose: str, monkeypatch
) -> None:
    plug_in(driver)
    monkeypatch.setattr(machine_module, "torch_builds", lambda: {"cuda": None, build: "7.0"})
    with pytest.raises(MachineUnusable, match=f"a GPU of {whose} is there .*; name a `config`"):
        plan_launch(JOB, LaunchOptions(), this_machine())
    launch = plan_launch(JOB, LaunchOptions(config=SINGLE), this_machine())
    assert not launch.is_on_cpu
    assert launch.environment[GPU_VARIABLE] == "1", "none of its processes may train on the CPU"
    planned = in_process._planned(JOB.model_copy(update={"accelerate_config": str(SINGLE)}), cpu=False)
    assert planned.environment[GPU_VARIABLE] == "1", "nor may `train` in Python"


@pytest.mark.parametrize("value", ["", "-1"])
@pytest.mark.parametrize("name", ["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"])
def test_who_hides_amds_gpus_has_asked_for_the_cpu(driver: FakeDriver, name: str, value: str, monkeypatch) -> None:
    amds(driver)
    monkeypatch.setenv(name, value)
    assert plan_launch(JOB, LaunchOptions(), this_machine()).is_on_cpu


@pytest.mark.parametrize(("memory", "number"), [(2**29, 1), (2**36, 0)], ids=["in the processor", "a processor alone"])
def test_what_amds_driver_has_beside_a_gpu_is_none(driver: FakeDriver, memory: int, number: int) -> None:
    driver.kfd(memory=memory, number=number)
    assert plan_launch(JOB, LaunchOptions(), this_machine()).is_on_cpu


def test_what_torch_was_built_for_is_known_without_importing_it() -> None:
    assert torch_builds() == {"cuda": torch.version.cuda, "hip": torch.version.hip, "xpu": torch.version.xpu}


def test_a_process_that_is_launched_for_a_gpu_knows_it(driver: FakeDriver) -> None:
    driver.nodes()
    driver.nvml("healthy")
    assert plan_launch(JOB, LaunchOptions(), this_machine()).environment[GPU_VARIABLE] == "1"
    assert GPU_VARIABLE not in plan_launch(JOB, LaunchOptions(cpu=True), this_machine(cpu=True)).environment


def test_a_launch_on_a_gpu_tells_cublas_of_one_order_before_cuda_is_used() -> None:
    machine, name = TWO_GPUS, "CUBLAS_WORKSPACE_CONFIG"
    assert plan_launch(JOB, LaunchOptions(), machine).environment[name] == ":4096:8"
    fast = JOB.model_copy(update={"fast_kernels": True})
    assert name not in plan_launch(fast, LaunchOptions(), machine).environment
    assert name not in plan_launch(JOB, LaunchOptions(cpu=True), machine).environment


# -- how many, and which ------------------------------------------------------------------------------------------


TWO_GPUS = Machine((Gpu("0", "A100", "40 GiB", "GPU-8f6a"), Gpu("1", "A100", "40 GiB", "GPU-8f6b")), False, 8)


def test_more_processes_than_gpus_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    told = "3 processes, and GPUs for 2: each needs one of its own"
    assert told in said_by(lambda: plan_launch(JOB, LaunchOptions(num_processes=3), TWO_GPUS))
    with pytest.raises(UnusableHere, match="`num_processes`"):
        plan_launch(JOB, LaunchOptions(config=config, num_processes=3), TWO_GPUS)
    with pytest.raises(UnusableHere, match="2 processes, and GPUs for 1"):
        plan_launch(JOB, LaunchOptions(num_processes=2, gpus=("1",)), TWO_GPUS)
    with pytest.raises(TooFewGpus, match=told):  # the job may be for another machine
        plan_launch(JOB.model_copy(update={"num_processes": 3}), LaunchOptions(), TWO_GPUS)
    with pytest.raises(UnusableHere, match="2 processes, and GPUs for 1"):
        plan_launch(JOB, LaunchOptions(num_processes=2), Machine((), has_mps=True, cores=8))
    assert plan_launch(JOB, LaunchOptions(num_processes=3, cpu=True), replace(TWO_GPUS, gpus=())).num_processes == 3
    assert plan_launch(JOB, LaunchOptions(num_processes=2), TWO_GPUS).num_processes == 2


def test_gpus_are_chosen_by_index_or_uuid() -> None:
    launch = plan_launch(JOB, LaunchOptions(gpus=("GPU-8f6b", "0")), TWO_GPUS)
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "1,0"
    assert "no GPU GPU-8f6" in said_by(lambda: TWO_GPUS.chosen(["GPU-8f6"]))  # of two
    assert "named twice" in said_by(lambda: TWO_GPUS.chosen(["1", "GPU-8f6b"]))
    assert by_uuid(TWO_GPUS.gpus, "GPU-8f6b") == TWO_GPUS.gpus[1]


def test_a_mig_device_trains_a_job_by_itself(driver: FakeDriver) -> None:
    driver.nodes()
    driver.nvml("MIG")
    machine = this_machine()
    launch = plan_launch(JOB, LaunchOptions(gpus=("0:2",)), machine)
    assert (launch.num_processes, launch.environment["CUDA_VISIBLE_DEVICES"]) == (1, "MIG-02-c0ffee")
    whole = plan_launch(JOB, LaunchOptions(), machine)
    assert (whole.num_processes, whole.environment["CUDA_VISIBLE_DEVICES"]) == (1, "1")
    with pytest.raises(UserError, match="0:0, 1: MIG devices cannot train a job together"):
        plan_launch(JOB, LaunchOptions(gpus=("0:0", "1")), machine)
    parts = replace(machine, gpus=machine.gpus[:2])
    assert plan_launch(JOB, LaunchOptions(), parts).environment["CUDA_VISIBLE_DEVICES"] == "MIG-00-c0ffee"
    with pytest.raises(UnusableHere, match="2 processes, and GPUs for 1"):
        plan_launch(JOB, LaunchOptions(num_processes=2), parts)


# -- whose memory it is -----------------------------------------------------------------------------------------------


def told(memory: GpuMemory, gpus: list[str]) -> set[str]:
    answers: list[set[str]] = []

    def ask() -> bool:
        answers.extend(found for found in [memory.occupied(gpus)] if found is not None)
        return bool(answers)

    wait_until(ask, 20)
    return answers[0]


def test_a_gpu_whose_memory_is_taken_or_that_does_not_answer_is_somebodys(driver: FakeDriver) -> None:
    driver.nodes()
    driver.nvml("healthy")
    memory = GpuMemory()
    memory.check()
    assert memory.occupied(["0"]) is None, "it is looked in a thread"
    assert told(memory, ["0", "1"]) == {"1"}
    driver.nvml("lost")
    assert told(GpuMemory(free_below=0.9), ["0", "1"]) == {"0"}


def test_one_look_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accel_trainer.launch.gpu_memory.LOOK_EVERY_S", 0.0)
    answers: list[Found | Exception] = [
        Found(problem="Unknown Error"),
        RuntimeError("odd"),
        Found((Gpu("0", "", "", used=0.0),)),
    ]

    def look() -> Found:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    memory, said = GpuMemory(look=look), []

    def ask() -> bool:
        try:
            return memory.occupied(["0"]) == set()
        except UserError as error:
            said.append(str(error))
            return False

    wait_until(ask, 20)
    assert said == ["`wait_free`: Unknown Error", "`wait_free`: the driver cannot be asked: odd"]


@pytest.mark.parametrize("found", [Found(problem="Unknown Error"), Found(), Found((Gpu("0", "", ""),))])
def test_where_nobody_knows_whose_memory_it_is_nobody_waits_for_it(found: Found) -> None:
    assert "leave `wait_free` out" in said_by(GpuMemory(look=lambda: found).check)
