"""Weights that were not trained here, for the verbs and for notebooks."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accel_trainer.api.trained_run import Run, load_run
from accel_trainer.core.allow_imports import imports_allowed
from accel_trainer.core.files import expand_path


def load_pretrained(
    architecture: str,
    pretrained: str = "DEFAULT",
    *,
    dataset: str,
    data_root: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    allow: str | Iterable[str] = (),
    **settings: Any,
) -> Run:
    """Weights that were not trained here, as a run: it can be evaluated, compared, and asked for features.

    pretrained: the name of torchvision's weights, or a file or folder, as in a job. dataset, data_root: as in a job;
    whose validation images it is evaluated on by default. out: the folder to write, by default
    `models/<architecture>/<architecture>-<weights>`; one that has the same already is taken as it is. classes: the
    names of all logits in their order, where they cannot be told from the data set's. settings: parameters of a job
    that decide how it is evaluated, such as image_size, eval_crop, mean and std; by default those that were published
    with the weights. allow: packages of yours that the model may be imported from. Raises UserError.
    """
    run, _ = prepared(
        architecture,
        pretrained,
        dataset,
        data_root=data_root,
        out=out,
        classes=classes,
        settings=settings,
        allow=allow,
    )
    return run


def prepared(
    architecture: str,
    pretrained: str,
    dataset: str,
    *,
    data_root: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
    allow: str | Iterable[str] = (),
) -> tuple[Run, tuple[str, ...]]:
    """`load_pretrained`, and what was assumed of the weights, in a line each."""
    from accel_trainer.evaluation.anchor import Request, make_anchor

    request = Request(
        architecture=architecture,
        pretrained=pretrained,
        dataset=dataset,
        data_root=None if data_root is None else os.fspath(data_root),
        settings=settings,
        classes=classes,
        out=None if out is None else expand_path(out),
    )
    with imports_allowed(allow):
        anchor = make_anchor(request)
    return load_run(anchor.run.path), anchor.notes


def read_class_names(path: Path) -> list[str]:
    """Those of a text file, a line each. Raises OSError and ValueError."""
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]
