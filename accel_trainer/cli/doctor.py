"""The verb that looks for what may go wrong."""

import json
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Annotated

import typer

from accel_trainer.cli.app import DEFAULT_QUEUE, SIGNALED, SOME_FAILED, JsonOption, QueueOption, app
from accel_trainer.core.text import printable
from accel_trainer.doctor.findings import Finding, Grade

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@app.command()
def doctor(
    queue: QueueOption = DEFAULT_QUEUE,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also a real `accelerate launch`; ten seconds more, with GPUs a minute.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look for what may go wrong: libraries, devices, disks, the queue's file system, Weights & Biases.

    A line for each check: ok, warning or problem, with how to mend it. What it tries in the queue's folder is removed
    again. Exit code 1: there is a problem.
    """
    from accel_trainer.doctor.examination import examination

    found: dict[str, Finding] = {}
    with _ended_by_signals(), closing(examination(queue, deep=deep)) as lines:
        for name, finding in lines:
            found[name] = finding
            if not as_json:
                typer.echo(_line(name, finding))
    if as_json:
        rows = [
            {"check": name, "grade": finding.grade.value, "said": finding.message, "fix": finding.fix}
            for name, finding in found.items()
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        typer.echo(_summary([finding.grade for finding in found.values()]))
    if any(finding.grade is Grade.PROBLEM for finding in found.values()):
        raise typer.Exit(SOME_FAILED)


def _line(name: str, finding: Finding) -> str:
    fix = "" if finding.fix is None else f"; to mend it: {finding.fix}"
    return printable(f"{finding.grade:<8} {name:<17} {finding.message}{fix}").replace("\n", r"\n")


def _summary(grades: list[Grade]) -> str:
    counts = {grade: grades.count(grade) for grade in (Grade.PROBLEM, Grade.WARNING)}
    words = [f"{count} {grade}{'' if count == 1 else 's'}" for grade, count in counts.items() if count]
    return " and ".join(words) if words else "all is well"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A signal ends the examination in order, so that nothing of it is left; a second one does not disturb that."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(SIGNALED + number)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if before[number] is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
