"""Files of `accelerate config`: read as data, by a closed table of keys.

`accelerate launch` takes from such a file, and from the mappings in it, every option of its own parser and torchrun's,
such as a rendezvous that unpickles what a server answers. So it is never given one: what the table knows is passed as
options, and everything else is refused by name.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from accel_trainer.core.errors import SetupUnusable, UserError
from accel_trainer.core.files import expand_home, read_bytes
from accel_trainer.core.text import did_you_mean, first_line

MAX_CONFIG, MAX_CONFIG_DEPTH = 64 * 1024, 10
# The file that is given to `accelerate launch`, so that it looks for no other.
NO_CONFIG = Path(__file__).with_name("accelerate.yaml")
# Those to begin with, for every kind of hardware.
BUNDLED = Path(__file__).with_name("accelerate_configs")
MULTI_GPU_TYPES = ("MULTI_GPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_XPU", "MULTI_HPU")
# Unquoted, YAML reads NO as false.
ONE_PROCESS = ("NO", False)


class UnusableHere(UserError):
    """No job can be launched here as it is asked for: an option is wrong, or the machine. No mistake of a job."""


class MachineUnusable(UnusableHere, SetupUnusable):
    """The same, where it is the user's own default on this machine, or its GPUs."""


class TooFewGpus(UserError):
    """A job's config asks for more GPUs than this machine has. The job may be for another."""


class Origin(Enum):
    """Who has named a config file: a job, an option of the command, or nobody, as it is the user's own default."""

    JOB = "job"
    OPTION = "option"
    DEFAULT = "default"


@dataclass(frozen=True)
class ConfigFile:
    """A file of `accelerate config`, and who has named it."""

    path: Path
    origin: Origin

    def refuse_gpus(self, num_processes: int, num_gpus: int) -> NoReturn:
        """Raises UserError: a process has no GPU of its own."""
        message = f"{num_processes} processes, and GPUs for {num_gpus}: each needs one of its own"
        if self.origin is Origin.JOB:
            raise TooFewGpus(f"{self.path}: num_processes: {message}", key="accelerate_config")
        self.refuse(message, "num_processes")

    def refuse(self, message: str, key: str | None = None) -> NoReturn:
        """Raises UserError; UnusableHere for a file that no job has named."""
        where = str(self.path) if key is None else f"{self.path}: {key}"
        match self.origin:
            case Origin.JOB:
                raise UserError(f"{where}: {message}", key="accelerate_config")
            case Origin.OPTION:
                raise UnusableHere(f"{where}: {message}", option="config")
            case Origin.DEFAULT:
                raise MachineUnusable(
                    f"{where}: {message}", hint="it is your default of `accelerate config`: write it again or remove it"
                )


Empty = Annotated[dict[str, Any] | list[Any], Field(max_length=0)] | None
Off = Literal["no", "NO", False] | None


class _Dynamo(BaseModel):
    """How Accelerate would compile; a job says itself whether it is compiled."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    dynamo_backend: str | bool = "NO"
    dynamo_mode: str | None = None
    dynamo_use_fullgraph: bool | None = None
    dynamo_use_dynamic: bool | None = None
    dynamo_use_regional_compilation: bool | None = None


class AccelerateConfig(BaseModel):
    """The keys of a config file that may be there, and what each may be. Of some only that it is off.

    What the job decides is read and not used: mixed precision and compilation.
    """

    # Made when a file is read, and not for each command that might read one.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    distributed_type: str | Literal[False]
    compute_environment: Literal["LOCAL_MACHINE"] = "LOCAL_MACHINE"
    num_processes: Annotated[int, Field(ge=1, le=65_536)] = 1
    num_machines: Annotated[int, Field(ge=1, le=65_536)] = 1
    machine_rank: Annotated[int, Field(ge=0, le=65_535)] = 0
    main_process_ip: Annotated[str, Field(pattern=r"^[0-9A-Za-z:][0-9A-Za-z._:-]{0,252}\z")] | None = None
    main_process_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    rdzv_backend: Literal["static", "c10d"] = "static"
    same_network: bool = False
    gpu_ids: Annotated[str, Field(max_length=4096)] | Annotated[int, Field(ge=0)] = "all"
    use_cpu: bool = False
    debug: bool = False
    enable_cpu_affinity: bool = False

    mixed_precision: Literal["no", "fp16", "bf16", False] = "no"
    fp16: bool = False
    dynamo_backend: str | bool = "NO"
    dynamo_config: _Dynamo = Field(default_factory=_Dynamo)
    main_training_function: Annotated[str, Field(max_length=256)] = "main"

    downcast_bf16: Off = None
    tpu_use_cluster: Off = None
    tpu_use_sudo: Off = None
    tpu_env: Empty = None
    tpu_vm: Empty = None
    tpu_name: None = None
    tpu_zone: None = None
    commands: Empty = None
    command_file: None = None
    fp8_config: Empty = None
    deepspeed_config: Empty = None
    fsdp_config: Empty = None
    parallelism_config: Empty = None
    megatron_lm_config: Empty = None
    mpirun_config: Empty = None

    @property
    def is_multi(self) -> bool:
        """Whether it is for a copy of the model in each of several processes."""
        return self.distributed_type not in ONE_PROCESS

    @property
    def gpus(self) -> tuple[str, ...] | None:
        """The GPUs that it chooses, as they stand in CUDA_VISIBLE_DEVICES; None for all."""
        if self.gpu_ids in ("all", ""):
            return None
        return tuple(word.strip() for word in str(self.gpu_ids).split(","))

    @property
    def machine_args(self) -> Sequence[str]:
        """What tells `accelerate launch` of the other machines; nothing where there are none."""
        if self.num_machines == 1:
            return []
        args = ["--num_machines", str(self.num_machines), "--machine_rank", str(self.machine_rank)]
        args += ["--main_process_ip", self.main_process_ip] if self.main_process_ip is not None else []
        args += ["--main_process_port", str(self.main_process_port)] if self.main_process_port is not None else []
        return [*args, "--rdzv_backend", self.rdzv_backend, *(["--same_network"] if self.same_network else [])]


def config_file(job_config: str | None, option: Path | None) -> ConfigFile | None:
    """The file that counts, if any: that of the option goes before the job's, and that before the user's default."""
    if option is not None:
        return ConfigFile(option, Origin.OPTION)
    if job_config is not None:
        return ConfigFile(expand_home(job_config), Origin.JOB)
    path = users_default()
    return None if path is None else ConfigFile(path, Origin.DEFAULT)


def users_default() -> Path | None:
    """The file that `accelerate config` writes, if there is one."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    try:
        home = expand_home(os.environ.get("HF_HOME", cache_home / "huggingface"))
    except UserError:  # without a home folder there is no default in it
        return None
    path = home / "accelerate" / "default_config.yaml"
    return path if os.path.lexists(path) else None


def read_config(file: ConfigFile) -> AccelerateConfig:
    """What is in a config file. Raises UserError; UnusableHere where no job has named it."""
    content = _content(file)
    _refuse_environment(file, content)
    _refuse_unknown_keys(file, content)
    kind = content["distributed_type"]
    if kind not in ONE_PROCESS:
        _refuse_unknown_type(file, kind)
    given = {key: value for key, value in content.items() if value is not None}  # null is what is not said
    try:
        config = AccelerateConfig.model_validate(given)
    except ValidationError as error:
        _refuse_value(file, content, error)
    _refuse_contradictions(file, config)
    return config


def _content(file: ConfigFile) -> Mapping[str, Any]:
    import yaml

    try:
        text = read_bytes(_or_bundled(file.path), MAX_CONFIG)
        _refuse_what_grows(file, text)
        _refuse_duplicates(file, yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except OSError as error:
        file.refuse(f"cannot be read: {error.strerror}")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        file.refuse(f"is not YAML: {first_line(error)}")
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # as PyYAML fails at `!!bool maybe`
        file.refuse(f"has a value that is not of its tag: {first_line(error)}")
    if not isinstance(content, dict) or content.get("distributed_type") is None:
        file.refuse("has no distributed_type: it is not a file of `accelerate config`")
    return content


def _or_bundled(path: Path) -> Path:
    """A file; where there is none of that name, the one that comes with the package, by `cpu.yaml` or by
    `accelerate_configs/cpu.yaml`."""
    bundled = BUNDLED / path.name
    is_name = path.parent in (Path(), Path(BUNDLED.name))
    return bundled if is_name and not os.path.lexists(path) and bundled.exists() else path


def _refuse_what_grows(file: ConfigFile, text: bytes) -> None:
    """A few aliases can stand for billions of values, and PyYAML takes minutes over a small file that is deep."""
    import yaml

    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            file.refuse("write out what its aliases (*name) stand for")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_CONFIG_DEPTH:
            file.refuse("is nested too deeply")


def _refuse_duplicates(file: ConfigFile, node: Any) -> None:
    import yaml

    keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    for key in keys:
        if keys.count(key) > 1:
            file.refuse("is there twice", _key(key))


def _refuse_environment(file: ConfigFile, content: Mapping[str, Any]) -> None:
    if content.get("compute_environment", "LOCAL_MACHINE") != "LOCAL_MACHINE":
        file.refuse("may only be LOCAL_MACHINE", "compute_environment")


def _refuse_unknown_keys(file: ConfigFile, content: Mapping[Any, Any]) -> None:
    known = AccelerateConfig.model_fields
    for key in content:
        if key not in known:
            near = did_you_mean(key, known) if isinstance(key, str) else ""
            file.refuse(f"is no key that a config may have here{near}", _key(key))


def _key(key: object) -> str:
    """A key as it may stand in a message: a stranger's is written out, and not at any length."""
    return key if isinstance(key, str) and re.fullmatch(r"\w{1,64}", key) else repr(key)[:80]


def _refuse_unknown_type(file: ConfigFile, kind: object) -> None:
    """What the training loop is made for: one process, or a copy of the model in each of several."""
    if kind == "MULTI_CPU":
        file.refuse(
            "with MULTI_CPU, accelerate starts one process; for several on the CPU use MULTI_GPU with use_cpu: true, "
            "as accelerate_configs/multi_cpu.yaml",
            "distributed_type",
        )
    if kind not in MULTI_GPU_TYPES:
        allowed = f"NO or {', '.join(MULTI_GPU_TYPES)}"
        file.refuse(f"{_shown(kind)} is not supported; it is {allowed}", "distributed_type")


def _refuse_value(file: ConfigFile, content: Mapping[str, Any], error: ValidationError) -> NoReturn:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = str(first["loc"][0])
    file.refuse(f"{_shown(content.get(key))} is not allowed: {_what_it_may_be(key, first['msg'])}", key)


def _what_it_may_be(key: str, message: str) -> str:
    field = AccelerateConfig.model_fields[key]
    if field.annotation in (Empty, Off, None, type(None)):
        return "the training loop has nothing of the kind; leave it out"
    if field.annotation is int:
        least, *most = (getattr(bound, "ge", getattr(bound, "le", None)) for bound in field.metadata)
        return f"it is an integer of {least} or more" + (f", up to {most[0]:,}" if most else "")
    return message[:1].lower() + message[1:]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse_contradictions(file: ConfigFile, config: AccelerateConfig) -> None:
    if config.machine_rank >= config.num_machines:
        message = f"{config.machine_rank} of {config.num_machines} machines; the first one is 0"
        file.refuse(message, "machine_rank")
    if config.num_processes % config.num_machines:
        message = f"{config.num_processes} do not divide over {config.num_machines} machines"
        file.refuse(message, "num_processes")
    if (gpus := config.gpus) is None:
        return
    if not all(re.fullmatch(r"[0-9]{1,4}|(?:GPU|MIG)-[\w/-]{1,80}", gpu, re.ASCII) for gpu in gpus):
        file.refuse(f"{_shown(config.gpu_ids)} is not a list of GPUs such as 0,1", "gpu_ids")
    if config.num_machines == 1 and not config.use_cpu and len(gpus) < config.num_processes:
        file.refuse(f"{_shown(config.gpu_ids)} are fewer than num_processes, {config.num_processes}", "gpu_ids")


def refuse_other_machines(file: ConfigFile, config: AccelerateConfig) -> None:
    """Processes that train together run what the others send them, so only the user may say with whom they do."""
    if file.origin is Origin.JOB and config.num_machines > 1:
        file.refuse("a job may not name other machines; give such a file by `config`", "num_machines")
