"""Which command is launched, for every kind of hardware and every way to say so."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers import REPOSITORY
from launch.fake_driver import FakeDriver

from accel_trainer.config import Job
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.core.errors import UserError
from accel_trainer.launch import machine
from accel_trainer.launch.accelerate_config import config_file
from accel_trainer.launch.command import Launch, LaunchOptions, plan_launch
from accel_trainer.launch.machine import Machine, Nodes, this_machine
from accel_trainer.launch.nvidia import Gpu, find_gpus

CPU = Machine((), has_mps=False, cores=8)
TWO_GPUS = Machine((Gpu("0", "A100", "40 GiB"), Gpu("1", "A100", "40 GiB")), has_mps=False, cores=8)
MAC = Machine((), has_mps=True, cores=8)
CONFIGS = REPOSITORY / "accelerate_configs"


def job(**changes) -> Job:
    return Job(architecture="resnet18", **changes)


def test_a_cpu_machine_gets_one_process():
    launch = plan_launch(job(), LaunchOptions(), CPU)
    assert launch.num_processes == 1
    assert launch.environment["ACCELERATE_USE_CPU"] == "true"
    assert "--cpu" in launch.accelerate_args
    assert "--multi_gpu" not in launch.accelerate_args


def test_several_processes_on_a_cpu_use_gloo_without_the_cpu_flag():
    launch = plan_launch(job(), LaunchOptions(num_processes=4), CPU)
    assert launch.num_processes == 4
    assert launch.environment["ACCELERATE_USE_CPU"] == "true"
    assert "--multi_gpu" in launch.accelerate_args
    assert "--cpu" not in launch.accelerate_args
    threads = launch.accelerate_args.index("--num_cpu_threads_per_process") + 1
    assert launch.accelerate_args[threads] == "2"


def test_every_gpu_gets_a_process_and_a_free_port():
    launch = plan_launch(job(), LaunchOptions(), TWO_GPUS)
    assert launch.num_processes == 2
    assert "--multi_gpu" in launch.accelerate_args
    assert launch.accelerate_args[launch.accelerate_args.index("--main_process_port") + 1] == "0"
    assert "ACCELERATE_USE_CPU" not in launch.environment


def test_chosen_gpus_are_the_only_ones_visible_in_the_order_of_the_bus():
    launch = plan_launch(job(), LaunchOptions(gpus=("1",)), TWO_GPUS)
    assert launch.num_processes == 1
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert launch.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@pytest.mark.parametrize(("machine", "there"), [(TWO_GPUS, "there are 0, 1"), (CPU, "no GPU was found")])
def test_a_gpu_that_is_not_there_is_refused(machine, there):
    with pytest.raises(UserError, match=there):
        plan_launch(job(), LaunchOptions(gpus=("0", "5")), machine)


def test_a_mac_trains_on_its_own_gpu():
    launch = plan_launch(job(), LaunchOptions(), MAC)
    assert launch.num_processes == 1
    assert "ACCELERATE_USE_CPU" not in launch.environment


def test_a_flag_goes_before_the_job_and_the_job_before_the_users_default(own_environment):
    default = Path.home() / ".cache/huggingface/accelerate/default_config.yaml"
    default.parent.mkdir(parents=True)
    default.write_text((CONFIGS / "multi_cpu.yaml").read_text())
    own, flag = str(CONFIGS / "cpu.yaml"), CONFIGS / "single_gpu.yaml"

    def file_of(job: Job, flags: LaunchOptions) -> Path:
        return config_file(job.accelerate_config, flags.config).path

    assert file_of(job(), LaunchOptions()) == default
    assert file_of(job(accelerate_config=own), LaunchOptions()) == Path(own)
    assert file_of(job(accelerate_config=own), LaunchOptions(config=flag)) == flag
    assert plan_launch(job(), LaunchOptions(), CPU).num_processes == 2
    assert plan_launch(job(accelerate_config=own), LaunchOptions(), CPU).num_processes == 1


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_bundled_config_is_valid_for_accelerate_and_documents_its_use(path):
    from accelerate.commands.config.config_args import load_config_from_file

    assert path.read_text().startswith("# ")
    config = load_config_from_file(str(path))
    launch = plan_launch(job(), LaunchOptions(config=path), TWO_GPUS)
    assert launch.num_processes == config.num_processes
    uses_cpu = yaml.safe_load(path.read_text()).get("use_cpu", False)
    assert ("ACCELERATE_USE_CPU" in launch.environment) == uses_cpu


def test_the_number_of_processes_overrides_a_config():
    launch = plan_launch(job(), LaunchOptions(config=CONFIGS / "cpu.yaml", num_processes=2), CPU)
    assert launch.num_processes == 2
    assert "--multi_gpu" in launch.accelerate_args


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("distributed_type: 'NO'\ncompute_environment: AMAZON_SAGEMAKER", "may only be LOCAL_MACHINE"),
        ("a: [", "is not YAML"),
        ("a: 1", "no distributed_type"),
        ("- 1", "no distributed_type"),
        ("[" * 50_000, "is nested too deeply"),
        ("? " * 30_000, "is nested too deeply"),
        ("a: " + "9" * 5000, "is not YAML"),
        ("a: 2020-99-99", "is not YAML"),
        ("a: !!python/object/apply:os.mkdir [was-run]", "is not YAML"),
        ("a: &a [1, 2]\nnum_processes: *a\ndistributed_type: MULTI_GPU\n", "write out what its aliases"),
        ("x" * 100_000, "cannot be read: larger than 64 KiB"),
    ],
)
def test_a_config_that_is_none_is_refused(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        plan_launch(job(), LaunchOptions(config=path), CPU)


def test_a_config_that_stands_for_billions_of_values_is_refused_at_once(tmp_path):
    lines = ["distributed_type: MULTI_GPU", "a0: &a0 [1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    path = tmp_path / "config.yaml"
    path.write_text("\n".join([*lines, "num_processes: *a29"]))
    with pytest.raises(UserError, match="write out what its aliases"):
        plan_launch(job(), LaunchOptions(config=path), CPU)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_config_that_is_no_file_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "config.yaml"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/null")
    with pytest.raises(UserError, match="cannot be read: not a regular file"):
        plan_launch(job(accelerate_config=str(path)), LaunchOptions(), CPU)


def test_the_printed_command_can_be_typed():
    launch = plan_launch(job(), LaunchOptions(), CPU, ["a b.json", "--name=a b"])
    assert str(launch).endswith("-m accel_trainer.workers.train 'a b.json' '--name=a b'")
    assert " accelerate launch --config_file " in str(launch)
    assert launch.argv[1:3] == ["-m", "accel_trainer.workers.launch"]
    two = plan_launch(job(), LaunchOptions(num_processes=2), CPU)
    assert two.argv[1:3] == ["-m", "accelerate.commands.launch"]


def test_packages_that_may_be_imported_are_in_the_printed_command(monkeypatch):
    assert ALLOW_VARIABLE not in plan_launch(job(), LaunchOptions(), CPU).environment
    monkeypatch.setenv(ALLOW_VARIABLE, "my_lab,other.models")
    assert str(plan_launch(job(), LaunchOptions(), CPU)).count(f"{ALLOW_VARIABLE}=my_lab,other.models ") == 1


def test_launch_options_are_passed_on_as_flags_of_the_command():
    words = LaunchOptions(Path("c.yaml"), 2, ("0", "1")).argv()
    assert words == ["--config", "c.yaml", "--num-processes", "2", "--gpus", "0,1"]
    assert LaunchOptions(cpu=True).argv() == ["--cpu"]
    assert LaunchOptions().argv() == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("No devices were found", []),
        ("0, GPU-aaa, RTX 6000, Ada Generation, 49140 MiB, 1 MiB", ["0"]),
        ("Failed to initialize NVML, Driver/library, version mismatch, 5, 6", []),
        ("0, GPU-aaa, A\\0377, [N/A], [N/A]", ["0"]),
        ("", []),
    ],
)
def test_whatever_nvidia_smi_answers_is_no_error(tmp_path, monkeypatch, answer, expected):
    driver = FakeDriver(tmp_path / "root", monkeypatch, tmp_path)
    driver.smi(f"printf '{answer}\\n'")
    monkeypatch.setattr(machine, "answer_of_driver", find_gpus)  # which asks each time
    assert [gpu.index for gpu in this_machine().gpus] == expected


def plan(tmp_path: Path, content: str, flags: LaunchOptions | None = None) -> Launch:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    return plan_launch(job(), LaunchOptions(config=path) if flags is None else flags, TWO_GPUS)


@pytest.mark.parametrize("kind", ["MULTI_CPU", "FSDP", "DEEPSPEED", "XLA", "nonsense"])
def test_a_kind_of_training_that_the_loop_is_not_made_for_is_refused(tmp_path, kind):
    with pytest.raises(UserError, match=kind):
        plan(tmp_path, f"distributed_type: {kind}\nnum_processes: 2\n")


def test_no_without_quotes_which_yaml_reads_as_false_is_one_process(tmp_path):
    assert "--multi_gpu" not in plan(tmp_path, "distributed_type: NO\n").accelerate_args


@pytest.mark.parametrize("line", ["num_processes: two", "num_processes: -1", "num_machines: 0", "num_processes: true"])
def test_a_number_of_processes_that_is_none_is_refused(tmp_path, line):
    with pytest.raises(UserError, match=line.split(":")[0]):
        plan(tmp_path, f"distributed_type: MULTI_GPU\n{line}\n")


def test_chosen_gpus_override_a_config_but_compile_follows_the_job(tmp_path):
    path = tmp_path / "config.yaml"
    content = "distributed_type: MULTI_GPU\ngpu_ids: '0'\ndynamo_config: {dynamo_backend: INDUCTOR}\n"
    launch = plan(tmp_path, content, LaunchOptions(config=path, gpus=("0", "1")))
    args = launch.accelerate_args
    assert args[args.index("--gpu_ids") + 1] == "all"
    assert args[args.index("--dynamo_backend") + 1] == "no"
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_the_rank_of_a_machine_is_known_where_there_are_several(tmp_path):
    content = "distributed_type: MULTI_GPU\nnum_machines: 2\nmachine_rank: 1\nnum_processes: 4\n"
    assert plan(tmp_path, content).machine_rank == 1
    assert "--main_process_port" not in plan(tmp_path, content).accelerate_args


def test_what_is_compiled_is_kept_for_the_next_attempt(monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert "TORCHINDUCTOR_CACHE_DIR" not in plan_launch(job(), LaunchOptions(), CPU).environment
    kept = plan_launch(job(compile=True), LaunchOptions(), CPU).environment["TORCHINDUCTOR_CACHE_DIR"]
    assert Path(kept) == Path.home() / ".cache/accel-train/torchinductor", "not where others can put something"
    with monkeypatch.context() as homeless:
        homeless.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
        planned = plan_launch(job(compile=True, data_root="/data"), LaunchOptions(), CPU)
        assert "TORCHINDUCTOR_CACHE_DIR" not in planned.environment
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")  # is inherited
    assert "TORCHINDUCTOR_CACHE_DIR" not in plan_launch(job(compile=True), LaunchOptions(), CPU).environment


def test_of_several_nodes_each_gets_its_rank_for_accelerate(tmp_path):
    """By words of its own command line, which go before what is in a file."""
    from accelerate.commands.launch import launch_command_parser

    def told(flags, machine):
        launch = plan_launch(job(), flags, replace(machine, nodes=Nodes(2, 1, "10.0.0.1", 4711)))
        args = launch_command_parser().parse_args([*launch.accelerate_args, "script.py"])
        assert (args.num_machines, args.machine_rank) == (2, launch.machine_rank) == (2, 1)
        assert (args.main_process_ip, args.main_process_port, args.same_network) == ("10.0.0.1", 4711, True)
        assert args.num_processes == launch.num_processes
        return args

    assert told(LaunchOptions(), TWO_GPUS).num_processes == 4
    assert told(LaunchOptions(num_processes=2), TWO_GPUS).num_processes == 2
    on_cpu = told(LaunchOptions(), CPU)
    assert (on_cpu.num_processes, on_cpu.num_cpu_threads_per_process, on_cpu.multi_gpu) == (2, 8, True)
    path = tmp_path / "config.yaml"
    path.write_text("distributed_type: MULTI_GPU\nnum_machines: 3\nmachine_rank: 2\nnum_processes: 6\n")
    assert told(LaunchOptions(config=path), TWO_GPUS).num_processes == 6
    with pytest.raises(UserError, match="num_processes: 3 do not divide over 2 nodes"):
        told(LaunchOptions(num_processes=3), CPU)
