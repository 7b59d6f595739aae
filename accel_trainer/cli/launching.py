"""What the verbs that launch something have in common: options of the hardware, and calls of a worker."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from accel_trainer.cli.app import SIGNALED, SOME_FAILED, echo, print_problems
from accel_trainer.cli.completion import runs
from accel_trainer.cli.worker_bar import worker_bar
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.child_environment import Family, in_one_line, leftovers
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.launched import SET_ASIDE_VARIABLE
from accel_trainer.core.machine_errors import why_of_machine_in
from accel_trainer.launch.accelerate_config import ConfigFile, Origin, read_config
from accel_trainer.launch.call_worker import WorkerCall, WorkerFailed, WorkerStopped, listening
from accel_trainer.launch.command import LaunchOptions

RunArgument = Annotated[Path, typer.Argument(help="Run folder.", show_default=False, autocompletion=runs)]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML of `accelerate config`, or one of the bundled ones, such as multi_gpu.yaml."),
]
GpusOption = Annotated[
    str | None,
    typer.Option("--gpus", help="The GPUs to use: indices such as 0,1, of a MIG device 0:1, or beginnings of UUIDs."),
]
CpuOption = Annotated[bool, typer.Option("--cpu", help="Use the CPU, also where there is a GPU.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--num-processes", min=1, help="Processes per job; by default one per GPU."),
]

WeightsOption = Annotated[
    str, typer.Option("--weights", help="best, final, ema, swa, or the number of an epoch whose weights were kept.")
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", help="The folder that it is in; by default that of the job.", show_default=False),
]
DegradeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--degrade",
        metavar="NAME...",
        help="Degradations of the images, such as noise blur imagenet-c/fog; names up to the next option.",
        show_default=False,
    ),
]
DegradedSetOption = Annotated[
    Path | None,
    typer.Option(
        "--degraded-set",
        help="Folder of degraded images as published (ImageNet-C, CIFAR-C, any tree of conditions), instead.",
        show_default=False,
    ),
]
OccludersOption = Annotated[
    Path | None,
    typer.Option("--occluder-dir", help="Occluders, laid out as the Visual Occluders Dataset.", show_default=False),
]

_GPU = re.compile(r"\d{1,4}(:\d{1,4})?|(GPU|MIG)-[\w/-]{1,80}", re.ASCII)


def launch_options(
    config: Path | None, num_processes: int | None, gpus: str | None, *, cpu: bool = False
) -> LaunchOptions:
    """What the options of hardware mean. Raises UserError for GPUs that are not different names of some, and for a
    config that is none."""
    if cpu and gpus is not None:
        raise UserError("--cpu: not with --gpus")
    if config is not None:
        cpu |= read_config(ConfigFile(config, Origin.OPTION)).use_cpu
    indices = None
    if gpus is not None:
        indices = tuple(part.strip() for part in gpus.split(","))
        if not all(map(_GPU.fullmatch, indices)) or len(set(indices)) < len(indices):
            raise UserError(f"--gpus: {gpus!r} is not a list of different numbers such as 0,1")
    return LaunchOptions(config, num_processes, indices, cpu)


@contextmanager
def worker_call(called: AbstractContextManager[WorkerCall], what: str) -> Iterator[WorkerCall]:
    """A call of a worker; what ends it without an answer becomes a line and an exit code. Raises UserError."""
    report_set_aside()
    try:
        with worker_bar(what) as show, listening(show), called as call:
            show.close()
            yield call
    except WorkerStopped as stopped:
        echo(f"{what} was stopped", err=True)
        raise typer.Exit(SIGNALED + stopped.number) from stopped
    except WorkerFailed as error:
        why = why_of_machine_in(str(error))
        reason = f"{error}" if why is None else f"{error} ({why})"
        print_problems([f"{what} has failed: {reason}; all output: {error.log}"])
        raise typer.Exit(SOME_FAILED) from error


def report_set_aside(*families: Family) -> None:
    """One line on what of this environment does not reach what is launched; families: what else does not."""
    os.environ.pop(SET_ASIDE_VARIABLE, None)  # of another launch, in whose processes this one was begun
    if names := leftovers(os.environ, *families):
        typer.echo(f"set aside from the environment: {in_one_line(names)} (docs/environment.md says why)", err=True)


def plan_of_options(**given: Any) -> EvaluationPlan:
    """The evaluation that options say. Raises UserError with a line for each mistake, of the option that has it."""
    words = given.get("probabilities")
    if words is not None and words.removeprefix("-").isdecimal():
        given["probabilities"] = int(words)
    try:
        return EvaluationPlan.parse(given)
    except UserError as error:
        raise UserError(*map(_of_an_option, error.details)) from error


def _of_an_option(problem: Problem) -> Problem:
    if problem.key is None:
        return problem
    first, *within = problem.key.split(".")
    option = ("levels" if "levels" in within else "degrade") if first == "degradations" else first
    return replace(problem, key=None, option=option)
