"""Parameters whose effect is still to come: refused when set, never accepted and ignored."""

import json

from accel_trainer.config.base import Section

# Refused when they differ from their default.
NOT_YET = ("priority",)


def not_yet(job: Section) -> list[str]:
    """One line for each setting of the job that this version has no code for."""
    fields = type(job).model_fields
    return [
        f"{name}: not available in this version yet; remove it from the job "
        f"(its default is {json.dumps(fields[name].default)})"
        for name in NOT_YET
        if getattr(job, name) != fields[name].default
    ]
