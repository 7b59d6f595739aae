"""A folder to train in: a queue, jobs to begin with, and a note of what to type."""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel_trainer.config import Job
from accel_trainer.config.dataset_names import is_hugging_face, last_part
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_path, write_new
from accel_trainer.queue.store import QueueStore

BUNDLED = "digits"
# Two that train within a minute on a laptop, and differ.
EXAMPLES = ("small_cnn-digits.json", "cornet_z-digits.json")
QUEUE = "training_queue"
DEFAULT_ARCHITECTURE, EPOCHS, EPOCHS_OF_DIGITS = "resnet18", 30, 5
SIZE, SIZE_OF_DIGITS = 224, 32
# Batches: no larger, and at least so many for each epoch.
LARGEST_BATCH, STEPS = 64, 8
LEFT_OUT_OF_GIT = "/models/\n/training_queue/\nwandb/\n"


@dataclass(frozen=True)
class Images:
    """How a job names a data set. number: of training images; None where the data set was not opened yet."""

    dataset: str
    data_root: Path | None = None
    number: int | None = None

    @property
    def are_digits(self) -> bool:
        """Whether they come with the package: 8x8 pixels, for which the defaults are too large and too many."""
        return self.dataset == BUNDLED

    @property
    def image_size(self) -> int:
        """Height and width to train at, in pixels."""
        return SIZE_OF_DIGITS if self.are_digits else SIZE

    @property
    def epochs(self) -> int:
        """How many epochs to train for, where nobody says."""
        return EPOCHS_OF_DIGITS if self.are_digits else EPOCHS


@dataclass(frozen=True)
class NewFolder:
    """What was written, and what of it was there before and stayed as it was."""

    written: list[Path]
    kept: list[Path]


def find_images(given: str) -> Images:
    """A data set as a person names it: a folder, a pack, a name below ~/Datasets, `hf:` and a name, or `digits`.

    It is opened, but for one of Hugging Face. Raises UserError.
    """
    from accel_trainer.data.open import open_data_set

    if not (given := given.strip()):
        raise UserError("is empty", key="dataset", hint="name a folder with train/ and val/")
    if is_hugging_face(given):
        return Images(given)
    path, root = expand_path(given), Path(Job.model_fields["data_root"].default)
    is_path = "/" in given or (path.exists() and given != BUNDLED)
    if is_path:
        whole = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they are
        given, root = whole.name, whole.parent
    number = len(open_data_set(given, root, None, None).train.labels)
    return Images(given, root if is_path else None, number)


def check_architecture(name: str, image_size: int) -> None:
    """Whether there is a model of this name for images of this size. Raises UserError."""
    import torch

    from accel_trainer.zoo.registry import build

    with torch.device("meta"):
        try:
            build(name, {}, num_classes=2, image_size=image_size)
        except NotImplementedError:  # it is there, and cannot be built without memory
            return


def first_job(images: Images, architecture: str, epochs: int) -> dict[str, Any]:
    """The parameters of a job to begin with: AdamW with a rate that suits most models, and a cosine schedule."""
    job: dict[str, Any] = {"architecture": architecture, "dataset": images.dataset}
    if images.data_root is not None:
        job["data_root"] = str(images.data_root)
    if images.are_digits:
        job |= {"image_size": images.image_size, "transform_type": "none"}
    return {
        **job,
        "num_epochs": epochs,
        "batch_size": _batch_size(images.number),
        "optimizer": "AdamW",
        "optimizer_args": {"lr": 0.001 if images.are_digits else 0.0003, "weight_decay": 0.01},
        "scheduler": "CosineAnnealingLR",
        "scheduler_args": {"T_max": epochs},
    }


def _batch_size(number: int | None) -> int:
    size = LARGEST_BATCH
    while number is not None and size > 2 and size * STEPS > number:
        size //= 2
    return size


def name_of(job: Mapping[str, Any]) -> str:
    """What a job is called: by its model and data set."""
    model = str(job["architecture"]).rpartition(":")[2]
    return re.sub(r"[^\w.+-]+", "-", f"{model}-{last_part(job['dataset'])}").strip(".-")


def example_jobs() -> dict[str, bytes]:
    """The bundled job files to begin with, by their names."""
    folder = Path(__file__).with_name("examples")
    return {name: (folder / name).read_bytes() for name in EXAMPLES}


def as_file(job: Mapping[str, Any]) -> bytes:
    """A job as it stands in a file: a line for each parameter."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in job.items()]
    return "\n".join(["{", ",\n".join(lines), "}", ""]).encode()


def refuse_existing(folder: Path, jobs: Sequence[str]) -> None:
    """Raises UserError where a folder has one of the job files already, or is none."""
    if folder.exists() and not folder.is_dir():
        raise UserError("is a file", where=folder, hint="name a folder")
    if existing := [folder / name for name in jobs if os.path.lexists(folder / name)]:
        raise UserError("is there already, and nothing is replaced", where=existing[0], hint="name another folder")


def make_folder(folder: Path, jobs: Mapping[str, bytes]) -> NewFolder:
    """Write a queue, the jobs, a README.md and a .gitignore into a folder, which is made where there is none.

    A queue, a README.md and a .gitignore that are there stay as they are. Raises UserError where a job is there, before
    anything is written.
    """
    refuse_existing(folder, list(jobs))
    folder.mkdir(parents=True, exist_ok=True)
    made = NewFolder([], [])
    (made.kept if (folder / QUEUE).exists() else made.written).append(folder / QUEUE)
    QueueStore(folder / QUEUE).create()
    for name, content in jobs.items():
        write_new(folder / name, content)
        made.written.append(folder / name)
    for name, content in {"README.md": _note(list(jobs)), ".gitignore": LEFT_OUT_OF_GIT.encode()}.items():
        try:
            write_new(folder / name, content)
            made.written.append(folder / name)
        except FileExistsError:
            made.kept.append(folder / name)
    return made


def next_commands(jobs: Sequence[str]) -> list[tuple[str, str]]:
    """What to type in the new folder, and what each command does."""
    named = " ".join(map(shlex.quote, jobs))
    return [
        (f"accel-train add {named}", "checks the jobs and puts them into the queue"),
        ("accel-train run-queue", "trains them, one after the other"),
        ("accel-train status --watch", "from another terminal: how far they are"),
        ("accel-train compare models", "a table of what was trained"),
    ]


def _note(jobs: Sequence[str]) -> bytes:
    commands = next_commands(jobs)
    width = max(len(command) for command, _ in commands)
    return _NOTE.format(commands="\n".join(f"    {command:{width}}  # {what}" for command, what in commands)).encode()


_NOTE = """# Models to train

Type these commands in this folder:

{commands}

| here | what it is |
| --- | --- |
| `*.json` | jobs: a file says what is trained, and how |
| `training_queue/` | the queue: jobs that wait, run, are done or have failed |
| `models/` | what was trained, a folder for each job |

To train another model, copy a job file under a new name, change it, and `accel-train add` it.
`accel-train show JOB` prints every parameter with its default; `accel-train --help` lists all commands.
"""
