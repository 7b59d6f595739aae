"""A folder that `accel-train export` has written, opened again."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from accel_trainer.core.allow_imports import imports_allowed
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_path

if TYPE_CHECKING:
    from torch import nn

    from accel_trainer.data.pipeline import ValidationTransform


class Export:
    """An exported model. It needs neither the run nor a network; every property and method raises UserError for a file
    that cannot be read."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = expand_path(path)
        if not self._own:
            raise UserError(f"{self.path} is no export: it has no config.json of `accel-train export`")

    def __repr__(self) -> str:
        return f"Export({str(self.path)!r}, {self.format})"

    @property
    def format(self) -> str:
        """hf, torchvision, ..."""
        return str(self._own["format"])

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        from accel_trainer.export.package_use import exported_classes

        return exported_classes(self.path)

    def model(self, *, allow: str | Iterable[str] = ()) -> "nn.Module":
        """The model on the CPU, in evaluation mode, as `Run.model` gives it. allow: packages of yours that may be
        imported, if the architecture is one of yours. Raises UserError for a format without weights of their own."""
        from accel_trainer.export.package_use import exported_model

        with imports_allowed(allow):
            return exported_model(self.path)

    @property
    def transform(self) -> "ValidationTransform":
        """The preprocessing, as `Run.transform` gives it."""
        from accel_trainer.data.pipeline import ValidationTransform
        from accel_trainer.export.package_use import exported_job

        return ValidationTransform(exported_job(self.path))

    @property
    def _own(self) -> dict[str, object]:
        from accel_trainer.export.folder import read_own

        return read_own(Path(self.path))


def load_export(path: str | os.PathLike[str]) -> Export:
    """The export in a folder. Raises UserError where there is none."""
    return Export(path)
