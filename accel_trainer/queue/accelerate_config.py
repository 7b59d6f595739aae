"""Files of `accelerate config`: where they are, and what of them can be used."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import read_bytes
from accel_trainer.core.text import first_line

# Unquoted, YAML reads NO as false.
ONE_PROCESS = ("NO", False)
MULTI_GPU_TYPES = ("MULTI_GPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_XPU", "MULTI_HPU")
MAX_CONFIG, MAX_CONFIG_DEPTH = 64 * 1024, 10


def users_default() -> Path | None:
    """The file that `accelerate config` writes, if there is one."""
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    home = Path(os.environ.get("HF_HOME", cache_home / "huggingface")).expanduser()
    path = home / "accelerate" / "default_config.yaml"
    return path if path.is_file() else None


def read_config(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        text = read_bytes(path, MAX_CONFIG)
        _refuse_what_grows(path, text)
        content = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"accelerate_config: {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"accelerate_config: {path} is not YAML: {first_line(error)}") from error
    if isinstance(content, dict) and content.get("compute_environment", "LOCAL_MACHINE") != "LOCAL_MACHINE":
        raise UserError(f"accelerate_config: {path}: compute_environment may only be LOCAL_MACHINE")
    if not isinstance(content, dict) or "distributed_type" not in content:
        raise UserError(f"accelerate_config: {path} has no distributed_type: it is not a file of `accelerate config`")
    return content


def _refuse_what_grows(path: Path, text: bytes) -> None:
    """A few aliases can stand for billions of values, and PyYAML takes minutes over a small file that is deep."""
    import yaml

    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"accelerate_config: {path}: write out what its aliases (*name) stand for")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_CONFIG_DEPTH:
            raise UserError(f"accelerate_config: {path} is nested too deeply")


def refuse_unknown_type(path: Path, content: Mapping[str, Any]) -> None:
    """What the training loop is made for: one process, or a copy of the model in each of several."""
    kind = content["distributed_type"]
    if kind == "MULTI_CPU":
        raise UserError(
            f"accelerate_config: {path}: with distributed_type MULTI_CPU, accelerate starts one process; "
            "for several on the CPU use MULTI_GPU with use_cpu: true, as accelerate_configs/multi_cpu.yaml"
        )
    if kind not in (*ONE_PROCESS, *MULTI_GPU_TYPES):
        raise UserError(
            f"accelerate_config: {path}: distributed_type {kind} is not supported; it is NO or "
            f"{', '.join(MULTI_GPU_TYPES)}"
        )


def integer(path: Path, content: Mapping[str, Any], key: str, default: int, least: int = 1) -> int:
    value = content.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"accelerate_config: {path}: {key}: {value!r} is not an integer of {least} or more")
    return value
