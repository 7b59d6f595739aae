"""The reference of the job file, from its definition: a JSON schema and the table of docs/parameters.md.

As a program (`python -m accel_trainer.config.schema docs/parameters.md`): puts the table between its two marks.
"""

import ast
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from accel_trainer.config.derived import JobParameters
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.config.evaluation_job import EvaluationParameters
from accel_trainer.config.fields import Section
from accel_trainer.config.job import Job
from accel_trainer.config.marks import sections_in
from accel_trainer.config.places import BASE_KEY, SCHEMA_KEY
from accel_trainer.core.text import with_part

MARKS = BEGIN, END = "<!-- parameters: begin (made by `make docs`) -->", "<!-- parameters: end -->"
SECTIONS: tuple[type[BaseModel], ...] = JobParameters.__bases__[::-1]
TRAINING = "Training"
# What a schema says of a value beside its type.
ABOUT = ("title", "description", "default", "examples")
KINDS: dict[str, type[BaseModel]] = {TRAINING: Job, "Evaluation": EvaluationParameters}
NESTED = tuple(
    {
        nested: None
        for kind in KINDS.values()
        for field in kind.model_fields.values()
        for nested in sections_in(field.annotation)
    }
)


def json_schema(names: Mapping[str, Sequence[str]] = MappingProxyType({})) -> dict[str, Any]:
    """The JSON schema of a job file, which trains or evaluates; null stands for the default everywhere.

    names: of parameters whose value is a name that other packages have, some that an editor proposes.
    """
    kinds: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for name, model in KINDS.items():
        kind = model.model_json_schema()
        definitions |= kind.pop("$defs", {})
        kinds[name] = {**kind, "title": name}
        _describe(model, kind["properties"])
    del kinds[TRAINING]["properties"]["name"]
    for nested in NESTED:
        _describe(nested, definitions[nested.__name__]["properties"])
    for name, known in names.items():
        kinds[TRAINING]["properties"][name]["examples"] = list(known)
    definitions |= kinds
    for definition in definitions.values():
        _allow_null(definition)
    for kind in kinds.values():
        _allow_base(kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "accel-train job",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in kinds],
        "$defs": dict(sorted(definitions.items())),
    }


def _allow_null(definition: dict[str, Any]) -> None:
    properties = definition["properties"]
    for name, part in properties.items():
        if name not in definition.get("required", []) and {"type": "null"} not in part.get("anyOf", []):
            properties[name] = _or_null(part)


def _allow_base(kind: dict[str, Any]) -> None:
    """A file that names a base need not say what the base says."""
    kind["properties"] |= {
        SCHEMA_KEY: {"type": "string", "description": "The JSON schema of job files, for editors."},
        BASE_KEY: {
            "type": "string",
            "description": "Another job file, which says what this one does not; its path is seen from this file. "
            "`accel-train add` puts both into the queue as one.",
        },
    }
    kind["anyOf"] = [{"required": kind.pop("required")}, {"required": [BASE_KEY]}]


def _describe(model: type[BaseModel], properties: dict[str, Any]) -> None:
    for name, text in field_docs(model).items():
        properties[name]["description"] = text


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field of a model and of the models it derives from."""
    docs: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, Section) or cls is Section:
            continue
        for definition in ast.parse(inspect.getsource(cls)).body:
            for field, after in pairwise(ast.iter_child_nodes(definition)):
                match field, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        docs[name] = " ".join(text.split())
    return docs


def _or_null(definition: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {key: definition[key] for key in ABOUT if key in definition}
    kind = {key: value for key, value in definition.items() if key not in about}
    kinds = kind["anyOf"] if set(kind) == {"anyOf"} else [kind]
    return {**about, "anyOf": [*kinds, {"type": "null"}]}


def parameter_table() -> str:
    """Every parameter with its default and meaning, in Markdown; those to come are listed by name."""
    lines = []
    of_evaluation = ("evaluate", *EvaluationPlan.model_fields)
    tables = [(section.__doc__, section, tuple(section.model_fields)) for section in SECTIONS]
    tables.append((f"{EvaluationParameters.__doc__}; with those of the queue", EvaluationParameters, of_evaluation))
    for title, section, names in tables:
        lines += [f"### {title}", "", "| parameter | default | meaning |", "| --- | --- | --- |"]
        docs = field_docs(section)
        for name in names:
            meaning = docs[name].replace("|", "\\|")
            lines.append(f"| `{name}` | {_default(section.model_fields[name])} | {meaning} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True, exclude_defaults=True)
    return "" if value is None else f"`{json.dumps(value)}`"


def with_table(text: str) -> str:
    """A page with the present table between its marks."""
    return with_part(text, MARKS, parameter_table())


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text()))
