"""Three machines train the jobs of one queue through two clients of a drive, and a person at a fourth changes their
states at random: each submission is in one place at every end, and its weights are those of a run that nobody disturbs.
"""

import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.fork_server import ForkServer
from faults.lab import SMALL_JOB
from faults.site.injection import UNCHECKED_VARIABLE, UNPLOTTED_VARIABLE
from helpers import REPOSITORY
from network.machines import Machine
from network.mounts import Mount

from accel_trainer.queue.layout import JobState
from accel_trainer.queue.store import QueueStore

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("on_one_core")]
NUM_JOBS, NUM_VERBS = 3, 10
# Of a client: what it remembers, and which answers it loses.
DRIVE = {
    "attr_s": 2,
    "entry_s": 2,
    "negative_s": 1,
    "listing_s": 2,
    "lost_replies": 0.05,
    "lost_only": "training_queue",
}
VERBS = ("hold", "hold --no-wait", "release", "cancel", "cancel --no-wait", "retry", "rm", "move --to other", "status")
BACK = ("--to", "training_queue")


def write_file(folder: Path, name: str, job: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(job))


def undisturbed(server: ForkServer, folder: Path, name: str, job: dict[str, Any]) -> Path:
    """The run folder of a job that one process trains, on a disk of this machine and without pauses."""
    run = folder / job["model_dir"]
    write_file(folder, name, {**job, "architecture_args": {}, "model_dir": str(run)})
    server.train(folder / f"{name}.json")
    return run


def environment(folder: Path, name: str) -> dict[str, str]:
    """Of a machine: its own home and temporary files."""
    own = folder / name
    own.mkdir(parents=True)
    paths = (REPOSITORY / "tests/faults/site", REPOSITORY / "tests", REPOSITORY)
    return {
        "HOME": str(own),
        "TMPDIR": str(own),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        UNCHECKED_VARIABLE: "1",
        UNPLOTTED_VARIABLE: "1",
        "ACCEL_TRAIN_ALLOW_IMPORTS": "tiny_models",
        "OMP_NUM_THREADS": "1",
    }


def test_a_storm_of_runners_and_verbs_keeps_every_job_in_one_place(
    mount: Callable[..., Mount], machines: Callable[..., Machine], tmp_path: Path, server: ForkServer
) -> None:
    draw, shared = random.Random(20), tmp_path / "shared"
    shared.mkdir()
    clients = [mount(name, **DRIVE, seed=seed) for seed, name in enumerate(("one", "other", "third"))]
    on_server, said = clients[0].server, list[str]()
    queue = QueueStore(on_server / "training_queue")
    queue.create()
    jobs = {
        f"job{number}": {
            **SMALL_JOB,
            "num_epochs": 2,
            "seed": number,
            "architecture_args": {"pause_s": 0.02},
            "model_dir": f"models/job{number}",
        }
        for number in range(NUM_JOBS)
    }
    for name, job in jobs.items():
        for folder in (tmp_path, queue.folder):
            write_file(folder, name, job)
    hosts = {
        name: machines(name, {clients[client].folder: shared})
        for name, client in (("grey", 0), ("rey", 0), ("blue", 1), ("desk", 2))
    }
    environments = {name: environment(tmp_path / "own", name) for name in hosts}
    # What is added is checked.
    asking = {name: value for name, value in environments["desk"].items() if name != UNCHECKED_VARIABLE}

    def start(name: str) -> "subprocess.Popen[str]":
        return hosts[name].start("run-queue", "--cpu", cwd=shared, **environments[name])

    def ask(*words: str) -> "subprocess.CompletedProcess[str]":
        done = hosts["desk"].run(*words, cwd=shared, **asking)
        said.append(f"{' '.join(words)}: {done.returncode}\n{done.stdout}")
        assert "Traceback" not in done.stdout, said[-1]
        assert done.returncode in (0, 2), said[-1]
        return done

    runners = {name: start(name) for name in ("grey", "rey", "blue")}
    for _ in range(NUM_VERBS):
        name, (verb, *flags) = draw.choice(list(jobs)), draw.choice(VERBS).split()
        done = ask(verb, *([name] if verb != "status" else ()), *flags)
        if done.returncode == 0 and verb in ("rm", "move"):  # it comes again
            back = ["add", tmp_path / f"{name}.json"] if verb == "rm" else ["move", name, "--queue", "other", *BACK]
            assert ask(*map(str, back)).returncode == 0, said[-1]
    outputs = []
    for attempt in range(6):
        for state, verb in ((JobState.HELD, "release"), (JobState.FAILED, "retry")):
            for job in queue.jobs(state):
                ask(verb, job.name)
        for name, runner in runners.items():
            output, _ = runner.communicate(timeout=400)
            outputs.append(f"{name}: {runner.returncode}\n{output}")
            assert "Traceback" not in output, output
            assert runner.returncode in (0, 1), output
        if len(queue.jobs(JobState.DONE)) == NUM_JOBS:
            break
        runners = {name: start(name) for name in (("blue",), ("grey",))[attempt % 2]}
    everywhere = [(job.name, job.state) for state in JobState for job in queue.jobs(state)]
    assert Counter(everywhere) == Counter((name, JobState.DONE) for name in jobs), "\n".join([*said, *outputs])
    for name, job in jobs.items():
        alone = undisturbed(server, tmp_path / "alone", name, job)
        weights = [run / "params/002.safetensors" for run in (on_server / "models" / name, alone)]
        assert weights[0].read_bytes() == weights[1].read_bytes(), name
