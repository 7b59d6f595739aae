"""What each parameter of a job file affects: a mark on its field, from which all sets of parameters follow."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, get_args

from pydantic import BaseModel


class Affects(Enum):
    """What changes with a parameter."""

    DATA = "the images that the model is trained on"
    MODEL = "the model, and the weights that it starts from"
    OPTIMIZATION = "how the weights are trained"
    RUN = "how, where and how far a run is carried out, watched and stored, but not the weights of an epoch"


class ChangesMetrics(Enum):
    """When metrics of the validation from before and after a change of a parameter cannot be compared."""

    ALWAYS = "whatever the job is"
    LOSS = "where the metric is the loss"
    AUGMENTED = "where the validation images are augmented as those of training"


class PathKind(Enum):
    """What a text names on a disk."""

    PATH = "a file or folder, without '..'"
    CONFIG = "a file, maybe with '..'"
    DATASET = "a folder below data_root, or 'hf:' and a path or a name on the hub"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is to be known of a parameter besides its type, range and default."""

    affects: Affects
    may_change: bool = False
    """Between attempts at one run: with another value it is the same run still."""
    may_move: bool = False
    """Another path between attempts makes no other run where the same is there: a run records what it has read."""
    is_reported: bool = True
    """A change between attempts is logged. Not so where nothing that is trained, measured or kept changes."""
    decides_groups: bool = False
    """The number and order of the optimizer's parameters follow from it."""
    decides_rate: bool = False
    """A learning rate that was found with one value may not suit another."""
    decides_images: bool = False
    """Which images there are, and their labels, follows from it."""
    changes_metrics: ChangesMetrics | None = None
    """When metrics of the validation from before and after a change cannot be compared; None: they can."""
    training_only: bool = False
    """It matters while a model is trained, and not to what is done with the model later."""
    is_checked: bool = True
    """What is found out about a job before it is trained may depend on it."""
    is_setting: bool = True
    """It may distinguish the runs of a sweep. Not so what names a run, and what a table of runs has a column for."""
    path: PathKind | None = None
    """The kind of path that it is, or that each item of it is."""
    arguments_of: str | None = None
    """The parameter that names the class whose arguments these are, and with whose default their own goes."""

    def but(self, **changes: Any) -> "Mark":
        """The same mark with some of its fields changed."""
        return replace(self, **changes)


DATA = Mark(affects=Affects.DATA, changes_metrics=ChangesMetrics.AUGMENTED)
MODEL = Mark(affects=Affects.MODEL)
OPTIMIZATION = Mark(affects=Affects.OPTIMIZATION)
RUN = Mark(affects=Affects.RUN, may_change=True)
UNREPORTED = RUN.but(is_reported=False)


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The classes of nested objects that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections_in(part)


def marks(section: type[BaseModel]) -> dict[str, Mark]:
    """The mark of each parameter, and of those in nested objects: {"finetune_args.finetune_dir": Mark(...)}.

    Raises TypeError for a field that has no mark.
    """
    found: dict[str, Mark] = {}
    for name, field in section.model_fields.items():
        mark = next((part for part in field.metadata if isinstance(part, Mark)), None)
        if mark is None:
            raise TypeError(f"{section.__name__}.{name} has no mark that says what it affects")
        found[name] = mark
        for nested in sections_in(field.annotation):
            found |= {f"{name}.{key}": inner for key, inner in marks(nested).items()}
    return found
