"""The verb `doctor`: checks of the machine, the installation and the queue's folder."""

import json
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from accel_trainer.cli.app import (
    DEFAULT_QUEUE,
    SIGNALED,
    SOME_FAILED,
    JsonOption,
    QueueOption,
    app,
    echo,
    echo_text,
    with_flags,
)
from accel_trainer.core.disk_calls import retrying
from accel_trainer.core.text import printable
from accel_trainer.doctor.findings import Finding, Grade

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@app.command()
def doctor(
    queue: QueueOption = DEFAULT_QUEUE,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also try a real `accelerate launch`; takes ten seconds more, a minute with GPUs."),
    ] = False,
    other: Annotated[
        Path | None,
        typer.Option(
            "--with",
            help="The queue's folder as another mount of it has it: also try what two machines see of each other.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check libraries, devices, disks, the queue's file system, and Weights & Biases.

    Prints a line for each check: ok, warning or problem, and how to fix it. Files that are written into the queue's
    folder for a trial are removed again. Exit code 1: there is a problem.
    """
    from accel_trainer.doctor.examination import examination

    found: dict[str, Finding] = {}
    with retrying(0), _exit_on_signals(), closing(examination(queue, deep=deep, other=other)) as lines:
        for name, finding in lines:
            found[name] = finding
            if not as_json:
                echo(_line(name, finding))
    if as_json:
        rows = [
            {"check": name, "grade": finding.grade.value, "said": finding.message, "fix": _fix(finding)}
            for name, finding in found.items()
        ]
        echo_text(json.dumps(rows, indent=2))
    else:
        echo(_summary([finding.grade for finding in found.values()]))
    if any(finding.grade is Grade.PROBLEM for finding in found.values()):
        raise typer.Exit(SOME_FAILED)


def _line(name: str, finding: Finding) -> str:
    fix = "" if finding.fix is None else f"; to fix it: {_fix(finding)}"
    return printable(f"{finding.grade:<8} {name:<17} {finding.message}{fix}").replace("\n", r"\n")


def _fix(finding: Finding) -> str | None:
    return None if finding.fix is None else with_flags(finding.fix)


def _summary(grades: list[Grade]) -> str:
    counts = {grade: grades.count(grade) for grade in (Grade.PROBLEM, Grade.WARNING)}
    parts = [f"{count} {grade}{'' if count == 1 else 's'}" for grade, count in counts.items() if count]
    return " and ".join(parts) if parts else "all is well"


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """A signal ends the examination with its cleanup, so that no file of it is left; later signals are ignored."""

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
