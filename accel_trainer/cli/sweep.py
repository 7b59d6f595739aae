"""The verb `sweep`: many jobs from one."""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from accel_trainer.api.checking import check_apart
from accel_trainer.api.verdicts import checked_alike, is_of
from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    AllowOption,
    JobArgument,
    JsonOption,
    allow_for_jobs,
    app,
    count_of,
    echo,
    echo_text,
    job_file,
    print_warnings,
)
from accel_trainer.cli.completion import parameters
from accel_trainer.cli.queue_home import in_typed_folder
from accel_trainer.config import job_name
from accel_trainer.config.base import standing_alone
from accel_trainer.config.doubts import doubts
from accel_trainer.config.job_text import parse_json, read_bytes
from accel_trainer.config.known import Known
from accel_trainer.config.sweep.axes import Settings, grid, parse_axes, random_search
from accel_trainer.config.sweep.expand import Base, Expansion, SweptJob, check_sweep_name, expand, group_problems
from accel_trainer.core.errors import Problem, SetupUnusable, UserError
from accel_trainer.core.files import write_atomic
from accel_trainer.core.text import format_value, shortest_suffixes
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

SetOption = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="KEY=VALUE,VALUE: a parameter and its values, such as seed=0,1,2 or optimizer_args.lr=0.1,0.01; "
        "with --random also KEY=uniform:LOW:HIGH, log:LOW:HIGH or int:LOW:HIGH. Once for each parameter.",
        show_default=False,
        autocompletion=parameters,
    ),
]
RandomOption = Annotated[
    int | None,
    typer.Option(
        "--random", min=1, help="Draw this many combinations, instead of taking all of them.", show_default=False
    ),
]
SweepSeedOption = Annotated[
    int | None,
    typer.Option("--sweep-seed", min=0, help="Seed of the draws of --random; 0 by default.", show_default=False),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Name of the sweep; by default that of the job file.", show_default=False),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to write to; by default ./NAME, for the sweep's name.", show_default=False),
]
AddOption = Annotated[bool, typer.Option("--add", help="Add the jobs to the queue, instead of writing files.")]
SweepQueueOption = Annotated[
    Path,
    typer.Option("--queue", help="The queue's folder: for --add, and for the jobs that these may start from."),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Replace files of other content; with --add, add finished and failed jobs again."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only check the jobs and print them.")]


@app.command()
def sweep(
    base: JobArgument,
    settings: SetOption,
    number: RandomOption = None,
    seed: SweepSeedOption = None,
    name: NameOption = None,
    out: OutOption = None,
    add: AddOption = False,
    queue: SweepQueueOption = DEFAULT_QUEUE,
    allow: AllowOption = "",
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make one job of each combination of some parameters' values, as a group in Weights & Biases.

    All jobs are checked first, and nothing is written unless all are valid. A job that exists already with the same
    content is left as it is.
    """
    allow_for_jobs(queue, allow)
    if seed is not None and number is None:
        raise UserError("--sweep-seed: nothing is drawn without --random N")
    if add and out is not None:
        raise UserError("--out: with --add the jobs go into the queue; leave one of them out")
    file, queued_name = job_file(base, queue)
    base_name, content = queued_name or job_name(file), parse_json(standing_alone(file), str(file))
    sweep_name = base_name if name is None else _checked_name(name)
    found = expand(Base(content, base_name, str(file)), sweep_name, _combinations(settings, number, seed or 0))
    if found.mistakes:
        _check(file, found, queue)
    jobs = found.jobs
    store = QueueStore(queue)
    target = _IntoQueue(store, force) if add else _Folder(out or in_typed_folder(sweep_name))
    paths = _existing(jobs, target, force)
    new = [job for job in jobs if job.name not in paths]
    _check(file, found, queue)
    if not dry_run:
        paths |= _write(new, target)
    if as_json:
        echo_text(json.dumps([_row(job, paths.get(job.name)) for job in jobs], indent=2))
    elif dry_run:
        echo_text(f"{_table(jobs)}\n\n{count_of(len(jobs), 'job')}; nothing was written")
    else:
        echo_text(_report(new, len(paths) - len(new), target))
        echo(f"next: {_next_command(jobs, sweep_name, target, queue)}")


def _next_command(jobs: Sequence[SweptJob], sweep_name: str, target: "_Folder | _IntoQueue", queue: Path) -> str:
    queue_option = "" if queue == DEFAULT_QUEUE else f" --queue {shlex.quote(str(queue))}"
    prefix = f"{sweep_name}-"
    has_prefix = all(job.name.startswith(prefix) for job in jobs)  # not where long names are cut
    return target.next_command(prefix if has_prefix else "", queue_option)


def _checked_name(name: str) -> str:
    try:
        return check_sweep_name(name)
    except UserError as error:
        raise error.of_option("name") from error


def _combinations(arguments: Sequence[str], number: int | None, seed: int) -> list[Settings]:
    try:
        axes = parse_axes(arguments)
        if number is None:
            return grid(axes)
    except UserError as error:
        raise error.of_option("set") from error
    try:
        drawn = random_search(axes, number, seed)
    except UserError as error:
        raise error.of_option("random") from error
    if len(drawn) < number:
        echo(f"--random {number}: there are only {len(drawn):,} combinations; these are all", err=True)
    return drawn


def _check(base: Path, found: Expansion, queue: Path) -> None:
    """Check whole jobs, as `add` does; of jobs that are the same to the check, one. What is doubted is said once for
    each parameter, with how many jobs it is. Raises UserError with all mistakes, also those of what is not wrong by
    itself in jobs that have some."""
    from accel_trainer.cli.progress import preparation_bar

    jobs = [(job.settings, job.job, frozenset[str]()) for job in found.jobs]
    jobs += [(rest.settings, rest.job, rest.unknown) for rest in found.remaining]
    coming = {job.name for _, job, _ in jobs}
    verdicts: dict[str, list[str]] = {}
    known: dict[str, Known] = {}
    doubted: dict[str | None, list[tuple[Settings, Problem]]] = {}
    mistakes = list(found.mistakes)
    with preparation_bar("checking") as progress:
        for done, (settings, job, unknown) in enumerate(jobs):
            key = checked_alike(job)
            if key not in verdicts:
                progress(done, len(jobs))
                verdicts[key] = []
                try:
                    known[key] = Known.of(check_apart(job, queue, LaunchOptions(), coming))
                except SetupUnusable:
                    raise
                except UserError as error:
                    verdicts[key] = error.problems
            mistakes += [(settings, Problem(line)) for line in verdicts[key] if not is_of(unknown, line)]
            for problem in doubts(job, known[key]) if key in known else []:
                doubted.setdefault(problem.key, []).append((settings, problem))
    if mistakes:
        raise UserError(*group_problems(str(base), mistakes))
    for jobs_of_it in doubted.values():
        settings, problem = jobs_of_it[0]
        (line,) = group_problems(str(base), [(settings, problem)] * len(jobs_of_it))
        print_warnings([str(line)])


@dataclass(frozen=True)
class _Folder:
    """Job files in a folder."""

    folder: Path
    what = "wrote", "job file"

    def find(self, jobs: Sequence[SweptJob]) -> dict[str, Path]:
        """The existing files with the names of jobs."""
        paths = {job.name: self.folder / f"{job.name}.json" for job in jobs}
        return {name: path for name, path in paths.items() if os.path.lexists(path)}

    def write(self, job: SweptJob) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{job.name}.json"
        write_atomic(path, job.content)
        return path

    def next_command(self, prefix: str, queue_option: str) -> str:
        return f"accel-train add{queue_option} {shlex.quote(f'{self.folder}/{prefix}')}*.json"


@dataclass(frozen=True)
class _IntoQueue:
    """Jobs of a queue. With force, jobs that are done or have failed do not count as existing."""

    queue: QueueStore
    force: bool
    what = "added", "job"

    @property
    def folder(self) -> Path:
        return self.queue.folder

    def find(self, jobs: Sequence[SweptJob]) -> dict[str, Path]:
        names = {job.name for job in jobs}
        states = [state for state in JobState if not (self.force and state.is_over)]
        found: dict[str, Path] = {}
        for job in (job for state in states for job in self.queue.jobs(state) if job.name in names):
            found.setdefault(job.name, job.path)
        return found

    def write(self, job: SweptJob) -> Path:
        self.queue.create()
        return self.queue.add(job.name, job.content, replace=self.force)

    def next_command(self, prefix: str, queue_option: str) -> str:
        return f"accel-train run-queue{queue_option}"


def _existing(jobs: Sequence[SweptJob], target: _Folder | _IntoQueue, force: bool) -> dict[str, Path]:
    """The paths of jobs that exist already, by name.

    Raises UserError for one of other content, without force.
    """
    found = target.find(jobs)
    same = {
        job.name: found[job.name] for job in jobs if job.name in found and _has_content(found[job.name], job.content)
    }
    others = [path for name, path in found.items() if name not in same]
    if others and not force:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserError(f"{others[0]}{more}: exists already with other content; choose another --name, or use --force")
    return same


def _has_content(path: Path, content: bytes) -> bool:
    try:
        return read_bytes(path) == content
    except UserError:
        return False


def _write(jobs: Sequence[SweptJob], target: _Folder | _IntoQueue) -> dict[str, Path]:
    paths = {}
    for job in jobs:
        try:
            paths[job.name] = target.write(job)
        except OSError as error:
            raise UserError(f"{target.folder}: {job.name} cannot be written: {error.strerror}") from error
    return paths


def _report(new: Sequence[SweptJob], num_existing: int, target: _Folder | _IntoQueue) -> str:
    action, what = target.what
    if not new:
        return f"{count_of(num_existing, what)} {'is' if num_existing == 1 else 'are'} in {target.folder} already"
    names = new[0].name if len(new) == 1 else f"{new[0].name} ... {new[-1].name}"
    existing = f" ({num_existing:,} more exist already)" if num_existing else ""
    return f"{action} {count_of(len(new), what)} to {target.folder}{existing}: {names}"


def _row(job: SweptJob, path: Path | None) -> dict[str, Any]:
    return {"job": job.name, "settings": dict(job.settings), "file": None if path is None else str(path)}


def _table(jobs: Sequence[SweptJob]) -> str:
    from accel_trainer.cli.tables import table

    labels = shortest_suffixes(jobs[0].settings)
    return table(["job", *labels.values()], [[job.name, *map(format_value, job.settings.values())] for job in jobs])
