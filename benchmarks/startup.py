"""What `accel-train status` takes, beside a typer program that does nothing: `python benchmarks/startup.py`.

In turn, A B B A, after a warm-up; medians of the CPU time (user and system), and of the ratio pair by pair: what else
the machine does counts less than in the wall time.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

PAIRS = 16
LIMIT = 2.0
EMPTY = """
import typer
app = typer.Typer()
@app.command()
def main() -> None:
    pass
app()
"""


def seconds(command: list[str]) -> float:
    """User and system time of a command."""
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, 1, 0)])
    _, status, used = os.wait4(pid, 0)
    if status:
        raise RuntimeError(f"{command} has failed")
    return used.ru_utime + used.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(10):
            (Path(folder) / f"job{number}.json").write_text('{"architecture": "resnet18"}')
        status = [sys.executable, "-m", "accel_trainer.cli", "status", "--queue", folder]
        empty = [sys.executable, "-c", EMPTY]
        seconds(status), seconds(empty)
        pairs = []
        for number in range(PAIRS):
            took = {id(command): seconds(command) for command in ((status, empty) if number % 2 else (empty, status))}
            pairs.append((took[id(status)], took[id(empty)]))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"accel-train status, 10 jobs   {statistics.median(a for a, _ in pairs) * 1000:6.0f} ms")
    print(f"an empty typer program        {statistics.median(b for _, b in pairs) * 1000:6.0f} ms")
    print(f"ratio                         {ratio:6.2f}  (at most {LIMIT:g})")


if __name__ == "__main__":
    main()
