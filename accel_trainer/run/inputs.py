"""What a run has read before: the files and folders of its job that are known to be there, or away."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from accel_trainer.config import Job
from accel_trainer.config.dataset_names import is_hugging_face, place_of, split_configuration
from accel_trainer.config.places import is_weights_path
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home_if_any
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import run_job


def known_inputs(job: Job, run: RunFolder) -> frozenset[str]:
    """The inputs of a job that the run in this folder began with: absolute paths, and names of Hugging Face data sets.

    What is missing of these is away; what only the job names now may be a mistake in it. None where no run was begun,
    or what it was cannot be read.
    """
    with suppress(UserError, OSError):
        if run.has_run:
            return frozenset(_inputs(run_job(run))) & frozenset(_inputs(job))
    return frozenset()


def _inputs(job: Job) -> Iterator[str]:
    root = expand_home_if_any(job.data_root)
    for name in (job.dataset, *job.eval_sets):
        if is_hugging_face(name):
            yield name
            for place in (place_of(name), split_configuration(place_of(name))[0]):
                yield _absolute(Path(place))
        else:
            yield _absolute(root / name)
    if job.Occlusion is not None:
        yield _absolute(Path(job.Occlusion.occluder_dir))
    if job.Noise is not None and job.Noise.mean_magnitude_path is not None:
        yield _absolute(Path(job.Noise.mean_magnitude_path))
    if job.starting_path is not None:
        yield _absolute(job.starting_path)
    if job.pretrained is not None and is_weights_path(job.pretrained):
        yield _absolute(Path(job.pretrained))


def _absolute(path: Path) -> str:
    """As paths are compared: links stay."""
    return os.path.abspath(expand_home_if_any(path))  # noqa: PTH100 - Path.resolve follows links
