"""A person at a machine that trains nothing: verbs at random on the jobs of a queue, by the real command line.

    python desk.py SEED NUMBER FILES

FILES has the jobs' files, for those that are removed and added again. Prints a line of JSON for each verb: its words,
exit code and output. At the end everything that was held back or has failed is pending again.
"""

import json
import random
import sys
import traceback
from pathlib import Path

from typer.testing import CliRunner

from accel_trainer.cli import app
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

VERBS = (
    "hold", "hold --no-wait", "release", "cancel", "cancel --no-wait", "retry", "rm", "move --to other", "status",
    "pause", "reclaim",
)  # fmt: skip
OF_ALL = ("status", "pause", "reclaim")


def ask(*words: str) -> int:
    done = CliRunner().invoke(app, words)
    is_broken = done.exception is not None and not isinstance(done.exception, SystemExit)
    why = "".join(traceback.format_exception(done.exception)) if is_broken else ""
    print(json.dumps([words, done.exit_code, done.output + why]), flush=True)
    return done.exit_code


def disturb(draw: random.Random, files: Path) -> None:
    name, (verb, *flags) = draw.choice(sorted(path.stem for path in files.glob("*.json"))), draw.choice(VERBS).split()
    is_done = ask(verb, *([] if verb in OF_ALL else [name]), *flags) == 0
    if is_done and verb == "pause":
        ask("resume")
    elif is_done and verb == "rm":
        ask("add", str(files / f"{name}.json"))
    elif is_done and verb == "move":
        ask("move", name, "--queue", "other", "--to", "training_queue")


def main(seed: str, number: str, files: str) -> None:
    draw, queue = random.Random(int(seed)), QueueStore(Path("training_queue"))
    for _ in range(int(number)):
        disturb(draw, Path(files))
    queue.look_anew()
    for state, verb in ((JobState.HELD, "release"), (JobState.FAILED, "retry")):
        for job in queue.jobs(state):
            ask(verb, job.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
