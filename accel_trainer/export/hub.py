"""Exports, uploaded to a repository of the Hugging Face hub. Without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.core.errors import SetupUnusable, UserError
from accel_trainer.core.text import first_line
from accel_trainer.export.folder import CONFIG, files_in, read_own


@dataclass(frozen=True)
class Upload:
    """What is uploaded: sizes in bytes, by name. left: files in the folder that no export has written there."""

    folder: Path
    files: Mapping[str, int]
    left: tuple[str, ...]


def upload_of(folder: Path) -> Upload:
    """The files of an export, the card with it as it is now. Raises UserError for a folder that is none, or has lost
    one."""
    own = read_own(folder)
    if not own:
        raise UserError(f"{folder} is no export: it has no {CONFIG} of `accel-train export`")
    names = sorted([*own["files"], CONFIG])
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(f"{folder} has lost {missing[0]}", hint="export it again")
    left = tuple(sorted(files_in(folder) - set(names)))
    return Upload(folder, {name: (folder / name).stat().st_size for name in names}, left)


def push(upload: Upload, repository: str, *, is_private: bool) -> str:
    """Make the repository, if there is none, and upload the files in one commit; its address.

    Raises UserError for what the hub refuses, and SetupUnusable where it is not reached.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=is_private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=upload.folder,
            allow_patterns=list(upload.files),
            commit_message="Upload of accel-train push",
        )
    except Exception as error:  # of the network, the hub and its login, in every way there is
        if _is_of_the_network(error):
            raise SetupUnusable(f"{repository}: the hub is not reached: {first_line(error)}") from error
        hint = "log in with `hf auth login`, or set HF_TOKEN, with the right to write there"
        raise UserError(f"{repository}: {first_line(error)}", hint=hint) from error
    return f"{api.endpoint}/{repository}"


def _is_of_the_network(error: Exception) -> bool:
    """Whether nobody has answered. Which client of HTTP the hub's library has differs among its versions."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or bool(names & {"TransportError", "ConnectionError"})
