"""What all parts of a job file have in common."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """Strict: unknown keys and wrong types are errors.

    The docstring under a field is its documentation. accel_trainer.config.reference reads it from the source when it
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


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _no_nulls(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


# "no-nulls" objects: in a job file null and absent mean the same, at every level we define.
WithoutNulls = BeforeValidator(_no_nulls)


def one_or_list(item: Any) -> BeforeValidator:
    """Takes one value where a list is meant, and says so in the JSON schema."""
    return BeforeValidator(_as_list, json_schema_input_type=item | list[item])


Probability = Annotated[float, Field(ge=0, le=1)]
Probabilities = Annotated[list[Probability], one_or_list(Probability), Field(min_length=1)]
Keywords = dict[str, Any]
