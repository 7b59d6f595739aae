"""The verb that makes many jobs of one."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from accel_trainer.api.verdicts import checked_alike, make_check, verdict_of
from accel_trainer.cli.app import DEFAULT_QUEUE, AllowOption, JsonOption, app, count_of
from accel_trainer.config import job_name
from accel_trainer.config.parse import parse_json, read_bytes
from accel_trainer.config.sweep.axes import Settings, grid, parse_axes, random_search
from accel_trainer.config.sweep.expand import Base, SweptJob, check_sweep_name, group_problems, swept_jobs
from accel_trainer.core.allow_imports import allow_imports
from accel_trainer.core.errors import Problem, UserError
from accel_trainer.core.files import write_atomic
from accel_trainer.core.text import format_value, shortest_suffixes
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore


@app.command()
def sweep(
    base: Annotated[Path, typer.Argument(help="Job file (JSON) to make the others from.", show_default=False)],
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            help="KEY=VALUE,VALUE: a parameter and its values, such as seed=0,1,2 or optimizer_args.lr=0.1,0.01; "
            "with --random also KEY=uniform:LOW:HIGH, log:LOW:HIGH or int:LOW:HIGH. Once for each parameter.",
            show_default=False,
        ),
    ],
    number: Annotated[
        int | None,
        typer.Option(
            "--random", min=1, help="Draw so many combinations, instead of taking all of them.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--sweep-seed", min=0, help="Other draws for another number; 0 if not given.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the sweep; the job file's if not given.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder to write to; if not given, one of the sweep's name here.", show_default=False
        ),
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Put the jobs into the queue, and write no other files.")] = False,
    queue: Annotated[
        Path, typer.Option("--queue", help="The queue's folder, for --add, and whose jobs they may start from.")
    ] = DEFAULT_QUEUE,
    allow: AllowOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that say something else; add what is done or failed again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and print the jobs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a job of every combination of some parameters' values: named, checked, and one group in Weights & Biases.

    Nothing is written unless all are right. What is there already, the same, is left alone.
    """
    allow_imports(allow)
    if seed is not None and number is None:
        raise UserError("--sweep-seed: nothing is drawn without --random N")
    if add and out is not None:
        raise UserError("--out: with --add the jobs go into the queue; leave one of them out")
    base_name, content = job_name(base), parse_json(read_bytes(base), str(base))
    sweep_name = base_name if name is None else _checked_name(name)
    jobs = swept_jobs(Base(content, base_name, str(base)), sweep_name, _combinations(settings, number, seed or 0))
    store = QueueStore(queue)
    target = _IntoQueue(store, force) if add else _Folder(out or Path(sweep_name))
    places = _left_alone(jobs, target, force)
    new = [job for job in jobs if job.name not in places]
    with redirect_stdout(sys.stderr):  # what a user's model prints is not our word
        _check(base, jobs, store)
    if not dry_run:
        places |= _put(new, target)
    if as_json:
        typer.echo(json.dumps([_row(job, places.get(job.name)) for job in jobs], indent=2))
    elif dry_run:
        typer.echo(f"{_table(jobs)}\n\n{count_of(len(jobs), 'job')}; nothing was written")
    else:
        typer.echo(_told(new, len(places) - len(new), target))
        queue_option = "" if queue == DEFAULT_QUEUE else f" --queue {shlex.quote(str(queue))}"
        beginning = f"{sweep_name}-"
        is_theirs = all(job.name.startswith(beginning) for job in jobs)  # not where it is cut
        typer.echo(f"next: {target.next_command(beginning if is_theirs else '', queue_option)}")


def _checked_name(name: str) -> str:
    try:
        return check_sweep_name(name)
    except UserError as error:
        raise error.of_option("name") from error


def _combinations(words: Sequence[str], number: int | None, seed: int) -> list[Settings]:
    try:
        axes = parse_axes(words)
        if number is None:
            return grid(axes)
    except UserError as error:
        raise error.of_option("set") from error
    try:
        drawn = random_search(axes, number, seed)
    except UserError as error:
        raise error.of_option("random") from error
    if len(drawn) < number:
        typer.echo(f"--random {number}: there are only {len(drawn):,} combinations; these are all", err=True)
    return drawn


def _check(base: Path, jobs: Sequence[SweptJob], queue: QueueStore) -> None:
    """Check whole jobs, as `add` does; those that are alike to a check, once. Raises UserError."""
    from accel_trainer.cli.progress import preparation_bar

    check, coming = make_check(LaunchOptions()), {job.name for job in jobs}
    verdicts: dict[str, list[str]] = {}
    mistakes: list[tuple[Settings, Problem]] = []
    with preparation_bar("checking") as progress:
        for done, swept in enumerate(jobs):
            key = checked_alike(swept.job)
            if key not in verdicts:
                progress(done, len(jobs))
                _, verdicts[key] = verdict_of(swept.job, check, queue, coming)
            mistakes += [(swept.settings, Problem(problem)) for problem in verdicts[key]]
    if mistakes:
        raise UserError(*group_problems(str(base), mistakes))


@dataclass(frozen=True)
class _Folder:
    """Job files go into a folder."""

    folder: Path
    what = "wrote", "job file"

    def find(self, jobs: Sequence[SweptJob]) -> dict[str, Path]:
        """The files that have the names of jobs."""
        paths = {job.name: self.folder / f"{job.name}.json" for job in jobs}
        return {name: path for name, path in paths.items() if os.path.lexists(path)}

    def put(self, job: SweptJob) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{job.name}.json"
        write_atomic(path, job.content)
        return path

    def next_command(self, beginning: str, queue: str) -> str:
        return f"accel-train add{queue} {shlex.quote(f'{self.folder}/{beginning}')}*.json"


@dataclass(frozen=True)
class _IntoQueue:
    """Jobs go into a queue. With force, those that are done or have failed do not count as being there."""

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

    def put(self, job: SweptJob) -> Path:
        self.queue.create()
        return self.queue.add(job.name, job.content, replace=self.force)

    def next_command(self, beginning: str, queue: str) -> str:
        return f"accel-train run-queue{queue}"


def _left_alone(jobs: Sequence[SweptJob], target: _Folder | _IntoQueue, force: bool) -> dict[str, Path]:
    """The jobs that are there already. Raises UserError where something else has a job's name, unless it may go."""
    found = target.find(jobs)
    same = {job.name: found[job.name] for job in jobs if job.name in found and _says(found[job.name], job.content)}
    others = [path for name, path in found.items() if name not in same]
    if others and not force:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserError(
            f"{others[0]}{more}: there already, but not as this sweep has it; choose another --name, or --force"
        )
    return same


def _says(path: Path, content: bytes) -> bool:
    try:
        return read_bytes(path) == content
    except UserError:
        return False


def _put(jobs: Sequence[SweptJob], target: _Folder | _IntoQueue) -> dict[str, Path]:
    places = {}
    for job in jobs:
        try:
            places[job.name] = target.put(job)
        except OSError as error:
            raise UserError(f"{target.folder}: {job.name} cannot be written: {error.strerror}") from error
    return places


def _told(new: Sequence[SweptJob], num_there: int, target: _Folder | _IntoQueue) -> str:
    did, what = target.what
    if not new:
        return f"{count_of(num_there, what)} {'is' if num_there == 1 else 'are'} in {target.folder} already"
    names = new[0].name if len(new) == 1 else f"{new[0].name} ... {new[-1].name}"
    there = f" ({num_there:,} more are there already)" if num_there else ""
    return f"{did} {count_of(len(new), what)} to {target.folder}{there}: {names}"


def _row(job: SweptJob, path: Path | None) -> dict[str, Any]:
    return {"job": job.name, "settings": dict(job.settings), "file": None if path is None else str(path)}


def _table(jobs: Sequence[SweptJob]) -> str:
    from accel_trainer.cli.tables import table

    labels = shortest_suffixes(jobs[0].settings)
    return table(["job", *labels.values()], [[job.name, *map(format_value, job.settings.values())] for job in jobs])
