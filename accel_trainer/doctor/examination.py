"""All checks, in their order: the quick ones first, then those that wait for the process that imports torch."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

from accel_trainer.core.files import cache_folder
from accel_trainer.core.processes import Program
from accel_trainer.doctor import client_trials, filesystem_trials, hardware, software, storage
from accel_trainer.doctor.findings import Check, Finding, Grade, Probe, ProbeFailed, problem, run_checks
from accel_trainer.launch.machine import this_machine
from accel_trainer.launch.nvidia import answer_of_driver

# Free space below which there is a warning, in GB: for job files and logs; for states and weights; for the temporary
# files of attempts; for spectra and masks.
QUEUE_GB, MODELS_GB, TEMPORARY_GB, CACHE_GB = 1.0, 10.0, 2.0, 1.0

Lines = Generator[tuple[str, Finding]]


def examination(queue: Path, *, deep: bool = False, other: Path | None = None) -> Lines:
    """Run all checks. Gives (name of a check, its finding), each as soon as it is known.

    queue: the queue's folder, which need not exist; deep: launch processes with `accelerate launch`, too. other: the
    same folder, as another mount has it. Closing the generator removes the temporary files.
    """
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
        yield from _queue_checks(queue, other)
        yield from run_checks(
            [
                Check("models", partial(storage.space, Path("models"), MODELS_GB)),
                Check("temporary", partial(storage.temporary, TEMPORARY_GB)),
                Check("cache", lambda: storage.space(cache_folder(), CACHE_GB)),
            ]
        )
        yield from _wandb_checks(wandb)
        yield from _torch_checks(torch)
        if deep:
            yield from run_checks([Check("launch", lambda: software.trial_launch(this_machine()))])


def _queue_checks(queue: Path, other: Path | None = None) -> Lines:
    """Checks of a queue's folder; they end with the first problem that leaves nothing to be tried."""
    existing = partial(storage.existing_part, queue)  # called only when the file system is known to respond
    for name, finding in run_checks(
        [
            Check("queue", partial(storage.responds, queue)),
            Check("file system", lambda: storage.file_system(existing())),
            Check("space", partial(storage.space, queue, QUEUE_GB)),
        ]
    ):
        yield name, finding
        if finding.grade is Grade.PROBLEM and name != "file system":
            return
    if existing() == queue:
        yield from run_checks([Check("folders", partial(storage.folders, queue))])
    with ExitStack() as stack:
        try:
            scratch = stack.enter_context(storage.scratch_folder(existing()))
        except OSError as error:
            yield (
                "trials",
                problem(f"no folder can be created in {existing()}: {error.strerror}", "fix its permissions"),
            )
            return
        yield from run_checks(
            Check(name, partial(filesystem_trials.run_trial, trial, scratch / name))
            for name, trial in filesystem_trials.TRIALS.items()
        )
        if other is not None:
            yield from _client_checks(existing(), other, scratch)


def _client_checks(folder: Path, other: Path, scratch: Path) -> Lines:
    """Checks of two clients; only the first where the other one has not the same folder."""
    for name, finding in run_checks(client_trials.client_checks(scratch, other / scratch.relative_to(folder))):
        yield name, finding
        if finding.grade is Grade.PROBLEM and name == "other client":
            return


def _wandb_checks(wandb: Probe) -> Lines:
    report = cache(partial(software.probe_wandb, wandb))
    yield from run_checks(
        [
            Check("wandb", lambda: software.wandb_login(report())),
            Check("wandb server", lambda: software.wandb_server(report())),
        ]
    )


def _torch_checks(torch: Probe) -> Lines:
    """Checks that depend on torch; only the first of them where it cannot be imported."""
    yield from run_checks([Check("torch", partial(software.torch_import, torch))])
    try:
        report: Mapping[str, Any] = torch.answer(software.TORCH_LIMIT_S)
    except ProbeFailed:
        report = {}
    if report:
        yield from run_checks(
            [
                Check("torch's GPUs", lambda: hardware.torch_gpus(this_machine(), report, answer_of_driver().cuda)),
                Check("image loading", lambda: software.image_loading(report)),
            ]
        )
    yield from run_checks([Check("accelerate config", lambda: software.accelerate_default(this_machine()))])
