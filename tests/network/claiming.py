"""One of several machines that claim all jobs of a queue, until nothing is left: prints the names of those it got.

    python claiming.py QUEUE GO

It begins when the file GO is there.
"""

import json
import sys
import time
from pathlib import Path

from accel_trainer.core.disk_calls import retrying
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore


def main(folder: str, go: str) -> None:
    queue, got, quiet_since = QueueStore(Path(folder)), [], 0.0
    queue.jobs(JobState.PENDING)  # as is remembered now
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.001)
    while not quiet_since or time.monotonic() - quiet_since < 1.0:
        is_waiting = queue.return_left_claims()
        pending = queue.jobs(JobState.PENDING)
        new = [job.name for job in pending if queue.claim(job) is not None]
        got += new
        if not new:
            queue.look_anew()
        quiet_since = 0.0 if pending or is_waiting else quiet_since or time.monotonic()
    print(json.dumps(got))


if __name__ == "__main__":
    with retrying(30.0):  # as a runner does
        main(*sys.argv[1:])
