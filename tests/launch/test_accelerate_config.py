"""A file of `accelerate config` is data: what it may have, what it may not, and that nothing else reaches a launch."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from helpers import REPOSITORY

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.launch.accelerate_config import (
    NO_CONFIG,
    AccelerateConfig,
    ConfigFile,
    MachineUnusable,
    Origin,
    UnusableHere,
    read_config,
)
from accel_trainer.launch.command import LaunchOptions, num_processes_wanted, plan_launch
from accel_trainer.launch.machine import Machine, Nodes
from accel_trainer.launch.nvidia import Gpu

CPU = Machine((), has_mps=False, cores=8)
GPUS = Machine(tuple(Gpu(str(n), "A100", "40 GiB") for n in range(4)), has_mps=False, cores=8)
TWO = "distributed_type: MULTI_GPU\nuse_cpu: true\nnum_processes: 2\n"


@pytest.fixture
def named(tmp_path: Path):
    """Write a config; the job that names it."""

    def write(content: str | bytes) -> Job:
        path = tmp_path / "config.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Job(architecture="resnet18", accelerate_config=str(path))

    return write


def parsed(args):
    """What Accelerate makes of options, as its launcher does, without starting anything."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    return _validate_launch_command(launch_command_parser().parse_args([*args, "script.py"]))[0]


SERVER = "rdzv_endpoint: '192.0.2.9:1234'"


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (f"mpirun_config: {{{SERVER}}}", "mpirun_config"),
        ("mpirun_config: {mpirun_hostfile: hosts}", "mpirun_config"),
        (f"fsdp_config: {{{SERVER}}}", "fsdp_config"),
        ("fp8_config: {rdzv_backend: c10d}", "fp8_config"),
        (f"megatron_lm_config: {{{SERVER}}}", "megatron_lm_config"),
        (f"deepspeed_config: {{{SERVER}}}", "deepspeed_config"),
        ("deepspeed_config: {deepspeed_hostfile: hosts}", "deepspeed_config"),
        (f"parallelism_config: {{{SERVER}}}", "parallelism_config"),
        (f"dynamo_config: {{{SERVER}}}", "dynamo_config"),
        ("dynamo_config: {training_script: /tmp/x.py}", "dynamo_config"),
        (f"fsdp_config: [{{{SERVER}}}]", "fsdp_config"),
        (f"tpu_env: [{SERVER}]", "tpu_env"),
        ("tpu_env: [LD_PRELOAD=/tmp/x.so]", "tpu_env"),
        ("commands: ['rm -rf ~']", "commands"),
        ("command_file: /tmp/commands", "command_file"),
        ("tpu_vm: [mine]", "tpu_vm"),
        ("tpu_name: mine", "tpu_name"),
        ("tpu_use_cluster: true", "tpu_use_cluster"),
        ("tpu_use_sudo: true", "tpu_use_sudo"),
        ("downcast_bf16: 'yes'", "downcast_bf16"),
        (SERVER, "rdzv_endpoint"),
        ("rdzv_conf: {a: 1}", "rdzv_conf"),
        ("rdzv_backend: etcd", "rdzv_backend"),
        ("module: false", "module"),
        ("no_python: true", "no_python"),
        ("training_script: /tmp/x.py", "training_script"),
        ("log_dir: /tmp/x", "log_dir"),
        ("run_path: true", "run_path"),
        ("main_training_function: [x]", "main_training_function"),
        ("mixed_precision: fp8", "mixed_precision"),
        ("mixed_precision: [bf16]", "mixed_precision"),
        ("debug: 1", "debug"),
        ("same_network: 'yes'", "same_network"),
        ("main_process_ip: '--rdzv_endpoint=x'", "main_process_ip"),
        ('main_process_ip: "10.0.0.1\\nLD_PRELOAD=x"', "main_process_ip"),
        ('main_process_ip: "10.0.0.1\\n"', "main_process_ip"),
        ("main_process_ip: 'a/b'", "main_process_ip"),
        ("main_process_port: 70000", "main_process_port"),
        ("main_process_port: '29500'", "main_process_port"),
        ("main_process_port: -1", "main_process_port"),
        ("gpu_ids: '0,1 --x'", "gpu_ids"),
        ("gpu_ids: '0'", "gpu_ids"),
        ("gpu_ids: [0, 1]", "gpu_ids"),
        ("gpu_ids: -1", "gpu_ids"),
        ("num_machines: 1e9", "num_machines"),
        ("num_machines: .nan", "num_machines"),
        ("num_machines: 99999999999999999999", "num_machines"),
        ("machine_rank: 1", "machine_rank"),
        ("num_machines: 2\nmain_process_ip: 192.0.2.9\nmain_process_port: 1\nrdzv_backend: c10d", "num_machines"),
        ("compute_environment: AMAZON_SAGEMAKER", "compute_environment"),
        ("compute_environment: [LOCAL_MACHINE]", "compute_environment"),
        ("num_machines: 1\nnum_machines: 2", "num_machines"),
        (f"<<: {{mpirun_config: {{{SERVER}}}}}", "mpirun_config"),
        ("1: 2", "1"),
        ("null: 2", "None"),
        ("[1, 2]: 2", "is not YAML"),
        ('"\\e]0;x\\a": 2', "x1b"),
        ("!!python/object/apply:os.mkdir [was-run]: 1", "is not YAML"),
        ("num_machines: !!python/object/apply:os.mkdir [was-run]", "is not YAML"),
        ("debug: !!python/name:os.system", "is not YAML"),
        ("---\ndistributed_type: NO", "is not YAML"),
    ],
)
def test_what_is_not_in_the_table_is_refused_by_name_as_the_jobs_mistake(named, lines, key):
    job = named(TWO.replace("use_cpu: true\n", "" if "gpu_ids" in lines else "use_cpu: true\n") + lines + "\n")
    with pytest.raises(UserError) as caught:
        plan_launch(job, LaunchOptions(), GPUS)
    (problem,) = caught.value.details
    assert not isinstance(caught.value, UnusableHere)
    assert problem.key == "accelerate_config"
    assert key in problem.message.removeprefix(job.accelerate_config)
    assert "\n" not in str(problem)
    assert not Path("was-run").exists()


@pytest.mark.parametrize("key", [name for name, field in AccelerateConfig.model_fields.items()])
@pytest.mark.parametrize("value", [{"rdzv_endpoint": "x:1"}, [{"rdzv_endpoint": "x:1"}], "--rdzv_endpoint=x:1", 1e300])
def test_no_key_lets_an_option_of_torchrun_through(named, key, value):
    content = {"distributed_type": "MULTI_GPU", "use_cpu": True, "num_processes": 2, key: value}
    try:
        launch = plan_launch(named(yaml.safe_dump(content)), LaunchOptions(), CPU)
    except UserError:
        return
    assert not any("rdzv" in word for word in launch.argv)


NO_CONFIGS = [b"\xff\xfe", b"\x00", b"a: \x1b", b"\xef\xbb\xbf[1]", b"null", b"''", b"1"]
# At which PyYAML fails in ways of its own.
WRONG_TAGS = [f"distributed_type: NO\ndebug: !!{value}".encode() for value in ("bool maybe", "timestamp x", "int ''")]


@pytest.mark.parametrize("content", [*NO_CONFIGS, *WRONG_TAGS])
def test_bytes_that_are_no_config_are_one_line(named, content):
    with pytest.raises(UserError) as caught:
        plan_launch(named(content), LaunchOptions(), CPU)
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]


def test_what_the_questionnaire_of_accelerate_writes_is_accepted(named):
    """As its version 1.15 writes it, and what older versions have added."""
    job = named(
        "compute_environment: LOCAL_MACHINE\ndebug: false\ndistributed_type: MULTI_GPU\ndowncast_bf16: 'no'\n"
        "enable_cpu_affinity: true\ngpu_ids: 2,3\nmachine_rank: 0\nmain_process_ip: null\nmain_process_port: null\n"
        "main_training_function: main\nmixed_precision: bf16\nnum_machines: 1\nnum_processes: 2\n"
        "rdzv_backend: static\nsame_network: true\ntpu_env: []\ntpu_use_cluster: false\ntpu_use_sudo: false\n"
        "use_cpu: false\ncommands: null\ndeepspeed_config: {}\nfsdp_config: {}\nmegatron_lm_config: {}\n"
        "dynamo_config: {dynamo_backend: INDUCTOR, dynamo_mode: default, dynamo_use_dynamic: false}\n"
    )
    args = parsed(plan_launch(job, LaunchOptions(), GPUS).accelerate_args)
    assert (args.multi_gpu, args.num_processes, args.num_machines, args.gpu_ids) == (True, 2, 1, "2,3")
    assert (args.mixed_precision, args.dynamo_backend) == ("no", "no"), "the job decides"
    assert args.enable_cpu_affinity


def test_what_is_said_of_a_machine_reaches_accelerate_as_it_did_by_the_file(tmp_path):
    path = tmp_path / "nodes.yaml"
    path.write_text((REPOSITORY / "accelerate_configs/multi_node.yaml").read_text().replace("static", "c10d"))
    args = parsed(plan_launch(Job(architecture="resnet18"), LaunchOptions(config=path), GPUS).accelerate_args)
    assert (args.num_machines, args.machine_rank, args.num_processes, args.multi_gpu) == (2, 0, 16, True)
    assert (args.main_process_ip, args.main_process_port) == ("192.0.2.1", 29500)
    assert (args.rdzv_backend, args.same_network) == ("c10d", True)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "accelerate_configs").iterdir()), ids=lambda path: path.name)
def test_a_bundled_config_is_named_from_any_folder(own_environment, path):
    whole = read_config(ConfigFile(path, Origin.OPTION))
    for name in (path.name, f"accelerate_configs/{path.name}"):
        assert read_config(ConfigFile(Path(name), Origin.JOB)) == whole
    with pytest.raises(UserError, match="cannot be read"):
        read_config(ConfigFile(Path("mine") / path.name, Origin.JOB))
    Path(path.name).write_text("distributed_type: mine")
    with pytest.raises(UserError, match="mine"):
        read_config(ConfigFile(Path(path.name), Origin.JOB))


@pytest.mark.parametrize("flags", [LaunchOptions(), LaunchOptions(num_processes=2)])
def test_a_launch_reads_no_file_of_accelerate_config(own_environment, flags):
    default = Path.home() / ".cache/huggingface/accelerate/default_config.json"
    default.parent.mkdir(parents=True)
    default.write_text('{"distributed_type": "FSDP", "compute_environment": "LOCAL_MACHINE"}')
    args = parsed(plan_launch(Job(architecture="resnet18"), flags, CPU).accelerate_args)
    assert args.config_file == str(NO_CONFIG)
    assert not args.use_fsdp


# -- whose mistake it is ----------------------------------------------------------------------------------------------


@pytest.fixture
def default(own_environment) -> Path:
    path = Path.home() / ".cache/huggingface/accelerate/default_config.yaml"
    path.parent.mkdir(parents=True)
    return path


BROKEN = {
    "DEEPSPEED": "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2}\n",
    "FSDP": "distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\n",
    "fp8": "distributed_type: 'NO'\nmixed_precision: fp8\n",
    "an unknown key": "distributed_type: 'NO'\nuse_mps_device: true\n",
    "damaged": "distributed_type: [",
    "empty": "",
    "four GPUs": "distributed_type: MULTI_GPU\nnum_processes: 4\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_default_that_cannot_be_used_is_the_machines_mistake(default, kind):
    default.write_text(BROKEN[kind])
    with pytest.raises(MachineUnusable, match="default of `accelerate config`"):
        plan_launch(Job(architecture="resnet18"), LaunchOptions(), CPU)
    with pytest.raises(MachineUnusable):
        num_processes_wanted(Job(architecture="resnet18"), LaunchOptions(), CPU)


@pytest.mark.parametrize("kind", ["folder", "pipe", "nowhere"])
def test_a_default_that_is_no_file_is_not_waited_for(default, kind):
    match kind:
        case "folder":
            default.mkdir()
        case "pipe":
            os.mkfifo(default)
        case "nowhere":
            default.symlink_to("nowhere")
    with pytest.raises(MachineUnusable, match="cannot be read"):
        plan_launch(Job(architecture="resnet18"), LaunchOptions(), CPU)


def test_a_default_is_not_looked_at_where_a_job_or_an_option_names_another(default, named, tmp_path):
    default.write_text(BROKEN["FSDP"])
    job = named("distributed_type: 'NO'\n")
    assert plan_launch(job, LaunchOptions(), CPU).num_processes == 1
    options = LaunchOptions(config=Path(job.accelerate_config))
    assert plan_launch(Job(architecture="resnet18"), options, CPU).num_processes == 1


def test_gpus_that_may_be_there_though_nothing_lists_them_are_not_missed(default):
    default.write_text(BROKEN["four GPUs"])
    amd = replace(CPU, may_have_other_gpus=True)
    assert plan_launch(Job(architecture="resnet18"), LaunchOptions(), amd).num_processes == 4
    assert plan_launch(Job(architecture="resnet18"), LaunchOptions(), GPUS).num_processes == 4
    with pytest.raises(MachineUnusable):
        plan_launch(Job(architecture="resnet18"), LaunchOptions(), replace(GPUS, gpus=GPUS.gpus[:2]))


def test_the_number_of_an_option_goes_before_that_of_a_default(default):
    default.write_text(BROKEN["four GPUs"])
    assert plan_launch(Job(architecture="resnet18"), LaunchOptions(num_processes=2), GPUS).num_processes == 2
    assert plan_launch(Job(architecture="resnet18", num_processes=2), LaunchOptions(), GPUS).num_processes == 2


def test_an_option_is_a_mistake_of_the_command_not_of_the_jobs(tmp_path):
    (tmp_path / "a.yaml").write_text(BROKEN["FSDP"])
    with pytest.raises(UnusableHere, match="`config`: ") as caught:
        plan_launch(Job(architecture="resnet18"), LaunchOptions(config=tmp_path / "a.yaml"), CPU)
    assert not isinstance(caught.value, MachineUnusable)


def test_a_cluster_says_which_machines_train_together_whatever_a_jobs_file_says(named):
    job = named("distributed_type: MULTI_GPU\nnum_machines: 2\nnum_processes: 8\nmain_process_ip: 192.0.2.9\n")
    machine = replace(GPUS, nodes=Nodes(2, 1, "10.0.0.1", 4711))
    args = plan_launch(job, LaunchOptions(), machine).accelerate_args
    assert "192.0.2.9" not in args
    assert args[args.index("--main_process_ip") + 1] == "10.0.0.1"


def test_every_key_of_accelerate_is_in_the_table_or_refused():
    """A key that Accelerate adds is to be decided on."""
    from accelerate.commands.config.config_args import ClusterConfig

    assert set(ClusterConfig.__dataclass_fields__) == set(AccelerateConfig.model_fields) - {"fp16", "dynamo_backend"}


def test_a_config_is_read_as_it_stands(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("distributed_type: NO\nmixed_precision: no\ngpu_ids: 1\n")
    config = read_config(ConfigFile(path, Origin.JOB))
    assert (config.is_multi, config.gpus, config.num_processes) == (False, ("1",), 1)
