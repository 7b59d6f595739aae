"""What the sections of a job file are made of: the base class, field types, and values that are more than names."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from accel_trainer.config.dataset_names import last_part


class Section(BaseModel):
    """Strict: unknown keys and wrong types are errors.

    The docstring under a field is its documentation. accel_trainer.config.schema reads it from the source when it
    is wanted: pydantic would do so at every start, which takes longer than everything else that is imported.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        # Validators are made when a job is first read: `accel-train status` of an empty queue needs none.
        defer_build=True,
    )


class SectionMistakes(ValueError):
    """Values of a section do not fit together. A ValueError, as pydantic takes no other from a validator."""

    def __init__(self, messages: Sequence[str]) -> None:
        self.messages = tuple(messages)
        super().__init__("; it ".join(messages))


def refuse_all(messages: Iterable[str | None]) -> None:
    """Raises SectionMistakes with the messages that there are: None is no mistake."""
    if found := [message for message in messages if message is not None]:
        raise SectionMistakes(found)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _no_nulls(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


# "no-nulls" objects: in a job file null and absent mean the same, at every level we define.
WithoutNulls = BeforeValidator(_no_nulls)


def one_or_list(item: Any) -> BeforeValidator:
    """Takes one value where a list is meant, also in the JSON schema."""
    return BeforeValidator(_as_list, json_schema_input_type=item | list[item])


Probability = Annotated[float, Field(ge=0, le=1)]
Probabilities = Annotated[list[Probability], one_or_list(Probability), Field(min_length=1)]


def _for_each_channel(values: list[float]) -> list[float]:
    """Three, of one for all or of one each."""
    if len(values) not in (1, 3):
        raise ValueError(f"has {len(values)} numbers: give one for red, green and blue each, or one for all")
    return values * (3 // len(values))


_Mean = Annotated[float, Field(ge=0, le=1)]
_Std = Annotated[float, Field(ge=1e-3, le=1)]
ChannelMeans = Annotated[list[_Mean], one_or_list(_Mean), AfterValidator(_for_each_channel)]
ChannelStds = Annotated[list[_Std], one_or_list(_Std), AfterValidator(_for_each_channel)]
Keywords = dict[str, Any]
TRANSFORM_BASES = ("default", "contrastive", "none")
TRANSFORM_MODIFIERS = ("weak-resize", "no-blur")
TRANSFORM_POLICIES = ("randaugment", "trivialaugment", "augmix")
LR_RULES = ("batch_linear", "batch_nonlinear", "LRfinder")


def transform_parts(transform_type: str) -> list[str]:
    """The parts of a transform_type, the base first: 'contrastive-no-blur' is ['contrastive', 'no-blur']."""
    parts, rest = [], transform_type
    for part in (*TRANSFORM_MODIFIERS, *TRANSFORM_POLICIES):
        if f"-{part}-" in f"{rest}-":
            rest = f"{rest}-".replace(f"-{part}-", "-", 1).removesuffix("-")
            parts.append(part)
    return [rest, *parts]


def transform_types() -> Iterator[str]:
    """Every transform_type, with its parts in one order."""
    for base in TRANSFORM_BASES:
        for number in range(len(TRANSFORM_MODIFIERS) + 1 if base != "none" else 1):
            for modifiers in combinations(TRANSFORM_MODIFIERS, number):
                yield from ("-".join(filter(None, (base, *modifiers, policy))) for policy in ("", *TRANSFORM_POLICIES))


def eval_split(dataset: str) -> str:
    """What performance.csv calls a further data set: `val_` and its name, or the last part of that of an 'hf:' set."""
    return "val_" + re.sub(r"[^\w.-]+", "_", last_part(dataset))
