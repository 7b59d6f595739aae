"""Arguments that models of the zoo once had under another name."""

from collections.abc import Mapping
from typing import Any

# `head_width` is the side of the pooling grid of cornet_s_plus and cornet_s_custom, and was something else elsewhere.
_WITH_HIDDEN_LAYERS = (
    "cornet_z", "cornet_r", "cornet_rt", "cornet_s", "blt_b", "blt_bl", "blt_bt", "blt_blt", "small_cnn",
)  # fmt: skip
WITH_GRID = "cornet_s_custom or cornet_s_plus"
RENAMED_ARGUMENTS = {architecture: {"head_width": "head_units"} for architecture in _WITH_HIDDEN_LAYERS}


def renamed_arguments(architecture: Any, args: Any) -> dict[str, str]:
    """Those of a job's architecture_args that are called otherwise now: {old name: new name}."""
    renamed = RENAMED_ARGUMENTS.get(architecture, {}) if isinstance(architecture, str) else {}
    return {old: new for old, new in renamed.items() if isinstance(args, Mapping) and old in args}


def with_new_names(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config.json of a run with its architecture_args as they are called now."""
    args = config.get("architecture_args")
    renamed = renamed_arguments(config.get("architecture"), args)
    if not renamed or not isinstance(args, Mapping):
        return config
    return {**config, "architecture_args": {renamed.get(name, name): value for name, value in args.items()}}
