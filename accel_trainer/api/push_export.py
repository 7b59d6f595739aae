"""An export, uploaded to the Hugging Face hub."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accel_trainer.export.hub import Upload


def upload_of(folder: Path) -> "Upload":
    """What would be uploaded of an export. Raises UserError for a folder that is none."""
    from accel_trainer.export import hub

    return hub.upload_of(folder)


def push_export(upload: "Upload", repository: str, *, is_private: bool = False) -> str:
    """Upload it to `owner/name`, which is made if there is none; its address. Raises UserError."""
    from accel_trainer.export import hub

    return hub.push(upload, repository, is_private=is_private)
