"""Which degradations of images, at which levels: as an evaluation names them, and a job that trains."""

import math
from contextlib import suppress
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from accel_trainer.config.fields import Section, one_or_list
from accel_trainer.config.marks import RUN
from accel_trainer.core.text import canonical


def _as_choice(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _each_once(values: list[Any]) -> list[Any]:
    plain = [value.model_dump(mode="json") if isinstance(value, Section) else value for value in values]
    if len({canonical(value) for value in plain}) < len(values):
        raise ValueError("has one value twice: give each once")
    return values


def _as_number(value: Any) -> Any:
    """A number that is written as a text; infinity, which JSON has not, stays one."""
    if isinstance(value, str):
        with suppress(ValueError):
            if math.isfinite(number := float(value)):
                return number
    return value


# Such as 0.5; a text as `none`, `inf`, or a level as its publication writes it (c05).
DegradationLevel = Annotated[
    float | Annotated[str, Field(min_length=1)],
    BeforeValidator(_as_number, json_schema_input_type=float | Annotated[str, Field(min_length=1)]),
]
Levels = Annotated[
    list[DegradationLevel], one_or_list(DegradationLevel), Field(min_length=1), AfterValidator(_each_once)
]


class DegradationChoice(Section):
    """A degradation, or a group of them, at some of its levels. Its name alone means all of its published levels."""

    name: Annotated[str, Field(min_length=1), RUN]
    """Such as `noise`, `noise/gaussian` or `imagenet-c/fog`."""
    levels: Annotated[Levels | None, RUN] = None
    """Which levels; absent: those of its publication, and the neutral one."""


Degradations = Annotated[
    list[Annotated[DegradationChoice, BeforeValidator(_as_choice, json_schema_input_type=str | DegradationChoice)]],
    one_or_list(str | DegradationChoice),
    AfterValidator(_each_once),
]
