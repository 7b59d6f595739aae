"""What one evaluation of a trained run is: which weights see which images, in which conditions, and what is kept."""

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from accel_trainer.config.dataset_names import last_part
from accel_trainer.config.degradations import Degradations
from accel_trainer.config.fields import Section
from accel_trainer.config.problems import few_problems, problems_of
from accel_trainer.core.errors import InvalidJob
from accel_trainer.core.text import canonical

MAX_NAME_BYTES = 120
# Of the name that is made for an evaluation, as far as it says what is measured.
MAX_SAID_BYTES = 100
PLAIN = "validation"
# Where images are, and how the evaluation is called, is not what is measured.
_NOT_MEASURED = frozenset({"name", "data_root"})


def usable_name(name: str) -> str:
    """The name itself. Raises ValueError where it cannot be a folder's."""
    if not name or not name.isprintable() or any(part in name for part in ("..", "/", "\\", ":")):
        raise ValueError(f"{name!r} cannot be a folder's name: without '/', '\\', ':', '..' and control characters")
    if name.startswith((".", "-")) or name != name.strip():
        raise ValueError(f"{name!r} cannot be a folder's name: it may not begin with '.' or '-', or have spaces around")
    if (num_bytes := len(os.fsencode(name))) > MAX_NAME_BYTES:
        raise ValueError(f"the name of an evaluation may have {MAX_NAME_BYTES} bytes, not {num_bytes}")
    return name


FolderName = Annotated[str, AfterValidator(usable_name)]
PathText = Annotated[str, Field(min_length=1)]


def _as_word(value: Any) -> Any:
    """The number of an epoch, as it is written."""
    return str(value) if type(value) is int else value


class EvaluationPlan(Section):
    """One evaluation of a trained run. Names of degradations and their levels are checked where those are known."""

    name: FolderName | None = None
    """The folder below `evaluations/`; absent: made of what is measured."""
    weights: Annotated[
        str, Field(min_length=1), BeforeValidator(_as_word, json_schema_input_type=str | Annotated[int, Field(ge=0)])
    ] = "best"
    """`best`, `final`, `ema`, `swa`, or the number of an epoch."""
    dataset: Annotated[str, Field(min_length=1)] | None = None
    """A data set with the run's classes, named as in a job; absent: the run's own."""
    data_root: PathText | None = None
    """The folder that data sets are in; absent: that of the run's job."""
    degradations: Degradations = []
    """Names, or objects `{"name": ..., "levels": [...]}`; empty: the images as they are."""
    degraded_set: PathText | None = None
    """A folder of degraded images as published: `<corruption>/<1..5>/<class>/*`, CIFAR-C's arrays, or any tree of
    conditions with class folders. They take the place of the data set's, and are resized but not cropped."""
    occluder_dir: PathText | None = None
    """A folder laid out as the Visual Occluders Dataset; absent: where that lies by default."""
    probabilities: Literal["all"] | Annotated[int, Field(ge=0)] = "all"
    """Which probabilities are kept of each answer: `all`, or the k largest with their classes; 0: none."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Images in a forward pass; absent: as many as the validation of the training has."""

    @model_validator(mode="after")
    def _one_kind_of_images(self) -> Self:
        """Raises ValueError where two keys say which images are shown."""
        if self.degraded_set is not None:
            if self.degradations:
                raise ValueError("`degraded_set` has degraded images, and `degradations` makes them: give one")
            if self.dataset is not None:
                raise ValueError("`degraded_set` takes the place of the images of `dataset`: give one")
        return self

    @classmethod
    def parse(cls, given: Mapping[str, Any], where: str | Path | None = None) -> Self:
        """A plan of what JSON has; null is absent. Raises InvalidJob with a problem for each mistake."""
        try:
            return cls.model_validate({key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            raise InvalidJob(*few_problems(problems_of(error, cls))).at(where) from error

    @property
    def folder_name(self) -> str:
        """The name of the folder: the one given, or one made of what is measured, the same for the same and another
        for anything else, such as `noise+blur`, `validation-at-5` or `noise-c2ad1f`."""
        if self.name is not None:
            return self.name
        said = "+".join(dict.fromkeys(choice.name for choice in self.degradations)) or PLAIN
        said = said if self.degraded_set is None else Path(self.degraded_set).name
        said += "" if self.dataset is None else f"-on-{last_part(self.dataset)}"
        said += "" if self.weights == "best" else f"-at-{self.weights}"
        name = re.sub(r"[^\w.+-]+", "-", said).strip("-.")
        is_said = name == said.replace("/", "-") and len(os.fsencode(name)) <= MAX_SAID_BYTES
        if (
            is_said
            and not self._set_beside({"degradations", "degraded_set", "dataset", "weights"})
            and not self._has_levels
        ):
            return name
        cut = os.fsencode(name)[:MAX_SAID_BYTES].decode(errors="ignore")
        return f"{cut}-{hashlib.sha256(canonical(self.measured()).encode()).hexdigest()[:6]}"

    def measured(self) -> dict[str, Any]:
        """What decides the numbers that come out, as JSON has it: all but how it is called and where the images are."""
        return self.model_dump(mode="json", exclude=set(_NOT_MEASURED))

    @property
    def _has_levels(self) -> bool:
        return any(choice.levels is not None for choice in self.degradations)

    def _set_beside(self, said: Collection[str]) -> bool:
        """Whether anything is otherwise than by default that the name does not say."""
        fields = type(self).model_fields.items()
        beside = {key: field.default for key, field in fields if key not in _NOT_MEASURED | {*said}}
        return any(getattr(self, key) != default for key, default in beside.items())
