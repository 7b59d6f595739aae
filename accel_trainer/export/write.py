"""A run to an exported folder."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from accel_trainer import __version__
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.export.brain_score import write_brain_score
from accel_trainer.export.card import card
from accel_trainer.export.facts import Facts, facts_of
from accel_trainer.export.folder import exported_folder, read_own, write_config, write_json
from accel_trainer.export.form import ExportOptions, Form
from accel_trainer.export.hugging_face import write_hugging_face
from accel_trainer.export.onnx_file import write_onnx
from accel_trainer.export.package_use import CLASSES
from accel_trainer.export.program_file import write_program
from accel_trainer.export.source import Source
from accel_trainer.export.standalone import preprocessing
from accel_trainer.export.torchvision_form import write_torchvision
from accel_trainer.run.folder import RunFolder

Format = Literal["hf", "torchvision", "onnx", "torch-export", "brain-score"]
FORMATS: dict[str, Callable[[Source, Path, ExportOptions], Form]] = {
    "hf": write_hugging_face,
    "torchvision": write_torchvision,
    "onnx": write_onnx,
    "torch-export": write_program,
    "brain-score": write_brain_score,
}
CARD, PREPROCESSING = "README.md", "preprocessing.json"


@dataclass(frozen=True)
class Written:
    """What was exported. files: sizes in bytes, by name; checks, notes: see `Form`."""

    folder: Path
    format: str
    files: Mapping[str, int]
    checks: Mapping[str, float]
    notes: tuple[str, ...]

    def as_row(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "folder": str(self.folder)}


def write_export(run: RunFolder, folder: Path, file_format: str, options: ExportOptions) -> Written:
    """Write the weights of a run to a folder, in a format. Raises UserError, and OSError."""
    if file_format not in FORMATS:
        near = did_you_mean(file_format, FORMATS) or f"; there are {listed(get_args(Format))}"
        raise UserError(f"there is no format {file_format!r}{near}", option="format")
    with exported_folder(folder) as place:
        source = Source.of(run, options.weights)
        form = FORMATS[file_format](source, place, options)
        facts = facts_of(source)
        _write_common(source, facts, form, options, place)
        write_config(place, form.config, _own(source, facts, file_format))
    sizes = {name: (folder / name).stat().st_size for name in read_own(folder)["files"]}
    return Written(folder, file_format, sizes, form.checks, tuple(form.notes))


def _write_common(source: Source, facts: Facts, form: Form, options: ExportOptions, place: Path) -> None:
    write_json(place / CLASSES, source.classes)
    write_json(place / PREPROCESSING, source.preprocessing.as_record())
    shutil.copyfile(str(preprocessing.__file__), place / "preprocessing.py")
    (place / CARD).write_text(card(source, facts, form, options), encoding="utf-8")


def _own(source: Source, facts: Facts, file_format: str) -> dict[str, Any]:
    """What `load_export` and `push` read again."""
    return {
        "made_by": f"accel-train {__version__}",
        "format": file_format,
        "name": source.name,
        "weights": source.word,
        "epoch": source.epoch,
        "job": dict(facts.job),
    }
