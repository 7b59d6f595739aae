"""Where a job trains or evaluates, and which job it starts from, by what its file says."""

from contextlib import suppress
from pathlib import Path, PurePath

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home

FINETUNE_DIR = "finetune"
EVALUATIONS = "evaluations"
# A job file with this key evaluates a run; one without it trains.
KIND_KEY = "evaluate"
# Of a file that a person writes: another one, with what this one does not say; and what editors look up.
BASE_KEY, SCHEMA_KEY = "base", "$schema"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")


def default_path(architecture: str, name: str) -> Path:
    """The run folder of a job that names none."""
    # A colon separates a drive, a stream or the paths of a list on one system or another.
    return Path("models") / architecture.replace(":", ".") / name


def base_path(architecture: str, name: str, model_dir: str | None) -> Path:
    """The folder that a model_dir names. Raises UserError for a home that there is not."""
    return default_path(architecture, name) if model_dir is None else expand_home(model_dir)


def evaluation_path(run: str, folder_name: str) -> Path:
    """The folder of one evaluation of a run. Raises UserError for a home that there is not."""
    return expand_home(run) / EVALUATIONS / folder_name


def folder_inside(base: Path, finetune_dir: str) -> Path:
    """A finetune_dir relative to the folder of its job, which it may be given with; another path as it is."""
    given = Path(finetune_dir)
    inside = _relative(given, base)
    return given if inside is None else inside


def _relative(path: Path, folder: Path) -> Path | None:
    """What comes after a folder in a path that goes through it, or None."""
    with suppress(UserError):  # a user without a home
        path = expand_home(path)
    if path.is_absolute():
        folder = folder.absolute()
    elif folder.is_absolute() and folder != (here := Path.cwd()) and folder.is_relative_to(here):
        folder = folder.relative_to(here)
    return path.relative_to(folder) if path.is_relative_to(folder) else None


def parent_in(starting_params: str | None) -> str | None:
    """The job that a starting_params names: one that may be no path does."""
    return None if starting_params is None or is_weights_path(starting_params) else starting_params


def is_weights_path(text: str) -> bool:
    """Whether a text can only name a file or folder, not published weights or a job."""
    return "/" in text or text.startswith("~") or PurePath(text).suffix.lower() in WEIGHT_SUFFIXES
