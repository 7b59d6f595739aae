"""The verb `profile`: where the time of a training goes."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    AllowOption,
    JobArgument,
    JsonOption,
    QueueOption,
    allow_for_jobs,
    app,
    echo,
    echo_text,
    job_file,
)
from accel_trainer.cli.launching import (
    ConfigOption,
    CpuOption,
    GpusOption,
    ProcessesOption,
    launch_options,
    worker_call,
)
from accel_trainer.cli.queue_home import in_typed_folder
from accel_trainer.config import read_job
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import Program
from accel_trainer.core.spans import Phase
from accel_trainer.launch.call_worker import called_worker
from accel_trainer.launch.command import Launch, plan_launch
from accel_trainer.launch.machine import this_machine

if TYPE_CHECKING:
    from accel_trainer.profiling.figures import Profile


@app.command()
def profile(
    job: JobArgument,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimizer steps to measure.")] = 50,
    warm_up: Annotated[
        int, typer.Option("--warm-up", min=1, help="Optimizer steps before them that are not measured.")
    ] = 10,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", help="File for the Chrome trace; <job>.trace.json by default.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    gpus: GpusOption = None,
    num_processes: ProcessesOption = None,
    cpu: CpuOption = False,
    queue: QueueOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
    as_json: JsonOption = False,
) -> None:
    """Train a job for a few steps, and report where the time goes and what limits it. Only a trace is kept."""
    from accel_trainer.profiling.figures import Profile, limit

    allow_for_jobs(queue, allow)
    file, name = job_file(job, queue)
    parsed = read_job(file, name)
    path = trace if trace is not None else in_typed_folder(f"{parsed.name}.trace.json")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--trace: there is no folder {path.parent}")

    def plan(place: Path) -> Launch:
        arguments = [str(file), f"--name={parsed.name}", f"--place={place}", f"--steps={steps}", f"--warm-up={warm_up}"]
        options = launch_options(config, num_processes, gpus, cpu=cpu)
        return plan_launch(parsed, options, this_machine(cpu=options.cpu), arguments, worker=Program.PROFILE)

    with worker_call(called_worker("profile", plan), f"{job}: the profile") as call:
        if call.row is None:
            echo("the first machine has the result")
            return
        _keep(call.place / "trace.json", path)
    if as_json:
        echo_text(json.dumps({**call.row, "trace": str(path)}))
        return
    found = Profile.from_row(call.row)
    echo_text("\n".join([_tables(found), "", f"{limit(found)}", f"trace (Perfetto, chrome://tracing): {path}"]))


def _keep(trace: Path, path: Path) -> None:
    try:
        shutil.move(trace, path)
    except OSError as error:
        raise UserError(f"--trace: {path} cannot be written: {error.strerror}") from error


def _tables(profile: "Profile") -> str:
    return "\n\n".join([_phases(profile), _loading(profile), _epoch(profile)])


def _phases(profile: "Profile") -> str:
    from accel_trainer.cli.tables import table

    # The validation of as many images, so that its forward pass can be compared.
    scale = 1000 * profile.images_per_process / profile.images_per_batch
    validation = {phase: scale * seconds for phase, seconds in profile.validation.items()}
    rows = [
        [_name(phase), 1000 * seconds, 100 * profile.fraction(Phase(phase)), validation.get(phase)]
        for phase, seconds in profile.step.items()
    ]
    whole = ["all", 1000 * profile.step_s, 100.0, sum(validation.values())]
    number = f"{profile.images_per_process:,} image{'' if profile.images_per_process == 1 else 's'}"
    return table((f"a step of {number}", "ms", "%", "ms in the validation"), [*rows, whole])


def _name(phase: str) -> str:
    return "everything else" if phase == Phase.STEP else phase


def _loading(profile: "Profile") -> str:
    """What the loader's threads do while steps are taken."""
    from accel_trainer.cli.tables import table

    names = {Phase.LOADING: "drawing, collecting"}
    rows = [[names.get(Phase(phase), phase), 1000 * seconds] for phase, seconds in profile.loading.items()]
    threads = profile.setting.threads
    worker = f"each of {threads} threads" if threads > 1 else "one thread"
    return table((f"loading, {worker}", "ms an image"), [*rows, ["all", 1000 * sum(profile.loading.values())]])


def _epoch(profile: "Profile") -> str:
    from accel_trainer.cli.tables import table

    rows = [[name, seconds] for name, seconds in profile.epoch.items()]
    return table(("an epoch", "s"), rows)
