"""Options of `evaluate` for weights that were not trained here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from accel_trainer.api.anchors import prepared, read_class_names
from accel_trainer.cli.app import echo
from accel_trainer.cli.completion import architectures
from accel_trainer.config.sweep.axes import grid, parse_axes
from accel_trainer.core.errors import UserError

ArchitectureOption = Annotated[
    str | None,
    typer.Option(
        "--architecture",
        help="Instead of RUN: weights that were not trained here, of this architecture, named as in a job.",
        show_default=False,
        autocompletion=architectures,
    ),
]
PretrainedOption = Annotated[
    str | None,
    typer.Option(
        "--pretrained",
        metavar="NAME|FILE",
        help="Which: DEFAULT or another name of torchvision's, or a file or folder of weights.",
        show_default="DEFAULT",
    ),
]
ClassesOption = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        help="Text file with the names of all logits, a line each, in their order; by default those of the data set.",
        show_default=False,
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A parameter of a job, instead of what is published with the weights, such as image_size=256 or "
        "mean=[0.5,0.5,0.5]. Once for each.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Run folder to write for these weights, which every other verb takes as RUN.",
        show_default="models/ARCHITECTURE/ARCHITECTURE-WEIGHTS",
    ),
]


@dataclass(frozen=True)
class AnchorOptions:
    """What is given of weights that were not trained here."""

    architecture: str | None
    pretrained: str | None
    classes: Path | None
    set: Sequence[str] | None
    out: Path | None

    def refuse(self, run: Path) -> None:
        """Raises UserError where there is any beside a run folder."""
        if given := next((name for name, value in vars(self).items() if value is not None), None):
            hint = f"leave {run} out, or these options: what was written for them once is a run folder"
            raise UserError("is of weights that were not trained here, and not of a run", option=given, hint=hint)

    def run(self, dataset: str | None, data_root: Path | None, allow: str) -> Path:
        """The run folder of these weights, which is written unless it is there; says what is assumed of them. Raises
        UserError."""
        if self.architecture is None:
            hint = "or give `architecture`, `pretrained` and `dataset`, for weights that were not trained here"
            raise UserError("no run folder is given", hint=hint)
        if dataset is None:
            hint = "whose validation images the weights are evaluated on, named as in a job"
            raise UserError("is needed with `architecture`", option="dataset", hint=hint)
        run, notes = prepared(
            self.architecture,
            self.pretrained or "DEFAULT",
            dataset,
            data_root=data_root,
            settings=_settings(self.set or ()),
            classes=self._names(),
            out=self.out,
            allow=allow,
        )
        for line in (*notes, f"run folder: {run.path}"):
            echo(line, err=True)
        return run.path

    def _names(self) -> list[str] | None:
        if self.classes is None:
            return None
        try:
            return read_class_names(self.classes)
        except ValueError as error:
            raise UserError(f"{self.classes} is no text file", option="classes") from error


def _settings(words: Sequence[str]) -> dict[str, Any]:
    """{"architecture_args": {"width": 2}} of architecture_args.width=2. Raises UserError."""
    combinations = grid(parse_axes(words)) if words else [{}]
    if len(combinations) > 1:
        raise UserError("one value for each key", option="set")
    found: dict[str, Any] = {}
    for key, value in combinations[0].items():
        first, *inner = key.split(".")
        if len(inner) > 1:
            raise UserError(f"{key} is nested too deeply", option="set")
        if inner:
            found.setdefault(first, {})[inner[0]] = value
        else:
            found[first] = value
    return found
