"""Parameters whose effect is still to come: refused when set, never accepted and ignored."""

import json
from typing import Any

from accel_trainer.config.base import Section

# Refused when they differ from their default.
NOT_YET = (
    "priority",
    "retries",
    "time_limit",
)


def not_yet(job: Section) -> list[str]:
    """One line for each setting of the job that this version has no code for."""
    fields = type(job).model_fields
    problems = [
        f"{name}: not available in this version yet; remove it from the job "
        f"(its default is {json.dumps(fields[name].default)})"
        for name in NOT_YET
        if getattr(job, name) != fields[name].default
    ]
    values: dict[str, Any] = {name: getattr(job, name) for name in fields}
    if values["batch_size"] == "auto":
        problems.append("batch_size: 'auto' is not available in this version yet; give a number")
    if isinstance(lr := values["optimizer_args"].get("lr"), str):
        problems.append(f"optimizer_args.lr: {lr!r} is not available in this version yet; give a number")
    return problems
