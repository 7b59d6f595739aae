"""The reference of the job file, from its definition: a JSON schema and the table in the README.

As a program (`python -m accel_trainer.config.reference README.md`): puts the table between its two marks.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from accel_trainer.config.job import Job
from accel_trainer.config.later import NOT_YET
from accel_trainer.config.parameters import (
    DataParameters,
    ModelParameters,
    OptimizationParameters,
    RunParameters,
)

BEGIN, END = "<!-- parameters: begin (made by `make docs`) -->", "<!-- parameters: end -->"
SECTIONS: tuple[type[BaseModel], ...] = (
    ModelParameters,
    DataParameters,
    OptimizationParameters,
    RunParameters,
)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a job file; null stands for the default everywhere."""
    schema = Job.model_json_schema()
    schema["title"] = "accel-train job"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    properties = schema["properties"]
    del properties["name"]
    for name, definition in properties.items():
        if name != "architecture" and {"type": "null"} not in definition.get("anyOf", []):
            properties[name] = _or_null(definition)
    return schema


def _or_null(definition: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {key: definition[key] for key in ("title", "description", "default") if key in definition}
    kind = {key: value for key, value in definition.items() if key not in about}
    kinds = kind["anyOf"] if set(kind) == {"anyOf"} else [kind]
    return {**about, "anyOf": [*kinds, {"type": "null"}]}


def parameter_table() -> str:
    """Every parameter with its default and meaning, in Markdown; those to come are listed by name."""
    lines = []
    for section in SECTIONS:
        lines += [f"### {section.__doc__}", "", "| parameter | default | meaning |", "| --- | --- | --- |"]
        for name, field in section.model_fields.items():
            if name not in NOT_YET:
                meaning = " ".join((field.description or "").split()).replace("|", "\\|")
                lines.append(f"| `{name}` | {_default(field)} | {meaning} |")
        lines.append("")
    lines += ["Known but still to come, and refused until then: " + ", ".join(f"`{n}`" for n in NOT_YET) + "."]
    return "\n".join(lines)


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True, exclude_defaults=True)
    return "" if value is None else f"`{json.dumps(value)}`"


def with_table(text: str) -> str:
    """A README with the present table between its marks."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{parameter_table()}\n{END}{after}"


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(with_table(readme.read_text()))
