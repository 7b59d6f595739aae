"""All checks, in their order: first what is quick, then what the process that imports torch has found meanwhile."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

from accel_trainer.core.files import cache_folder
from accel_trainer.core.processes import Program
from accel_trainer.doctor import filesystem_trials, hardware, software, storage
from accel_trainer.doctor.findings import Check, Finding, Grade, Probe, ProbeFailed, problem, run_checks
from accel_trainer.launch.machine import this_machine

# What is little for the place, in GB: job files and logs; states and weights; attempts' own files; spectra and masks.
QUEUE_GB, MODELS_GB, TEMPORARY_GB, CACHE_GB = 1.0, 10.0, 2.0, 1.0

Lines = Generator[tuple[str, Finding]]


def examination(queue: Path, *, deep: bool = False) -> Lines:
    """A line for each check, (its name, what it found), as soon as it is known. Closing it removes its scratch."""
    with Probe(Program.PROBE_TORCH.command()) as torch, Probe(Program.PROBE_WANDB.command()) as wandb:
        yield from run_checks(
            [
                Check("python", software.python),
                Check("packages", software.packages),
                Check("GPUs", hardware.gpus),
                Check("cores", hardware.cores),
                Check("memory", hardware.memory),
                Check("shared memory", lambda: hardware.shared_memory(this_machine())),
            ]
        )
        yield from _queue_checks(queue)
        yield from run_checks(
            [
                Check("models", partial(storage.space, Path("models"), MODELS_GB)),
                Check("temporary", partial(storage.temporary, TEMPORARY_GB)),
                Check("cache", partial(storage.space, cache_folder(), CACHE_GB)),
            ]
        )
        yield from _wandb_checks(wandb)
        yield from _torch_checks(torch)
        if deep:
            yield from run_checks([Check("launch", lambda: software.trial_launch(this_machine()))])


def _queue_checks(queue: Path) -> Lines:
    """What can be said of a queue's folder, as far as it goes: nothing is tried where nothing can be written."""
    place = partial(storage.existing_part, queue)  # asked once it is known that the file system answers
    for name, finding in run_checks(
        [
            Check("queue", partial(storage.responds, queue)),
            Check("file system", lambda: storage.file_system(place())),
            Check("space", partial(storage.space, queue, QUEUE_GB)),
        ]
    ):
        yield name, finding
        if finding.grade is Grade.PROBLEM and name != "file system":
            return
    if place() == queue:
        yield from run_checks([Check("folders", partial(storage.folders, queue))])
    with ExitStack() as stack:
        try:
            scratch = stack.enter_context(storage.scratch_folder(place()))
        except OSError as error:
            yield "trials", problem(f"no folder can be made in {place()}: {error.strerror}", "mend its permissions")
            return
        yield from run_checks(
            Check(name, partial(filesystem_trials.run_trial, trial, scratch / name))
            for name, trial in filesystem_trials.TRIALS.items()
        )


def _wandb_checks(wandb: Probe) -> Lines:
    told = cache(partial(software.probe_wandb, wandb))
    yield from run_checks(
        [
            Check("wandb", lambda: software.wandb_login(told())),
            Check("wandb server", lambda: software.wandb_server(told())),
        ]
    )


def _torch_checks(torch: Probe) -> Lines:
    """What depends on torch; only that it cannot be imported, where it cannot."""
    yield from run_checks([Check("torch", partial(software.torch_import, torch))])
    try:
        told: Mapping[str, Any] = torch.answer(software.TORCH_LIMIT_S)
    except ProbeFailed:
        told = {}
    if told:
        yield from run_checks(
            [Check("torch's GPUs", lambda: hardware.torch_gpus(this_machine(), told, hardware.driver_cuda()))]
        )
    yield from run_checks(
        [Check("accelerate config", lambda: software.accelerate_default(this_machine(), told.get("config_error")))]
    )
