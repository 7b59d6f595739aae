"""What all parts of a job file have in common."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """Strict: unknown keys and wrong types are errors; the docstring under a field is its documentation."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _no_nulls(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


# "no-nulls" objects: in a job file null and absent mean the same, at every level we define.
WithoutNulls = BeforeValidator(_no_nulls)
AsList = BeforeValidator(_as_list)

Probability = Annotated[float, Field(ge=0, le=1)]
Probabilities = Annotated[list[Probability], AsList, Field(min_length=1)]
Keywords = dict[str, Any]
