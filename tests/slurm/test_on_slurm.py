"""Queues on a real Slurm of two virtual nodes. Jobs of several tests run at once: most of their time is waiting."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dirty_shell import ALLOCATION, RANKS
from faults import checks
from faults.fork_server import ForkServer
from faults.lab import Lab
from helpers import own_disk, wait_until
from slurm.cluster import Cluster, shim

pytestmark = pytest.mark.slow

Start = Callable[..., Lab]
# As the undisturbed runs, with which they are compared: the number of threads decides the last bits.
ONE_CPU = "--sbatch-arg=--cpus-per-task=1"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Start]:
    """A queue of small jobs, on the way to Slurm: `pauses` of each job's steps by the jobs' names."""
    labs: list[Lab] = []

    def start(name: str, pauses: dict[str, float], *arguments: str, num_processes: int = 1, **changes: Any) -> Lab:
        lab = Lab(tmp_path_factory.mktemp(name), num_processes=num_processes)
        labs.append(lab)
        for job, pause_s in pauses.items():
            lab.add(job, pause_s=pause_s, **changes)
        # Several jobs on a node, except where one shows how many CPUs it gets by itself.
        few = [] if "--sbatch-arg=--hold" in arguments else [ONE_CPU]
        lab.start("--slurm", *few, *arguments)
        return lab

    yield start
    for lab in labs:
        lab.__exit__(None, None, None)


@pytest.fixture(scope="module")
def busy(start: Start) -> Lab:
    """A job, one that meets its time limit, and one that is cancelled."""
    return start("busy", {"one": 0.0, "timed": 1.6, "unwanted": 3.0}, "--time", "20")


@pytest.fixture(scope="module")
def unlucky(start: Start) -> Lab:
    """A job whose node fails, and which by then is not over, however long others take to begin."""
    return start("unlucky", {"unlucky": 4.0}, "--partition", "second")


@pytest.fixture(scope="module", autouse=True)
def time_limit(busy: Lab, unlucky: Lab, cluster: Cluster) -> None:
    """That of a job is over in two minutes at the most when it has made some steps, so that Slurm warns it when it
    looks next, every half minute."""
    busy.wait_for_step(2, "timed")
    (job_id,) = cluster.job_ids("timed")
    cluster.call("scontrol", "update", f"jobid={job_id}", f"TimeLimit={cluster.minutes(job_id) + 2}")

    def give_more_time() -> None:
        wait_until(lambda: cluster.restarts(job_id), 400)
        cluster.call("scontrol", "update", f"jobid={job_id}", "TimeLimit=20")
        busy.hurry()

    meanwhile(give_more_time)


@pytest.fixture(scope="module")
def power_cut(unlucky: Lab, cluster: Cluster) -> None:
    """The node of a job is gone, with everything on it, until Slurm has noticed."""
    unlucky.wait_for_step(3, "unlucky")
    (job_id,) = cluster.job_ids("unlucky")
    cluster.kill_node("n2")
    assert checks.global_step(unlucky.run("unlucky")) < 24
    wait_until(lambda: not unlucky.processes("worker"), 10)

    def come_back() -> None:
        wait_until(lambda: cluster.restarts(job_id), 400)
        unlucky.hurry()
        cluster.start_node("n2").wait()  # it ends with the thread that has started it

    meanwhile(come_back)


def meanwhile(act: Callable[[], None]) -> None:
    threading.Thread(target=act, daemon=True).start()


def is_whole(lab: Lab, server: ForkServer, name: str) -> bool:
    """Whether a job is done, once, and equal to its undisturbed run."""
    assert lab.where(name) == "done", lab.all_output()
    assert checks.duplicates(lab.run(name)) == []
    assert checks.differences(lab.run(name), lab.undisturbed(server, name)) == []
    return True


def status(lab: Lab, cli: Any, name: str, **environment: str) -> dict[str, Any]:
    rows = json.loads(cli("status", "--json", "--queue", lab.queue, **environment).stdout)
    return next(row for row in rows if row["job"] == name)


def test_scancel_saves_and_is_recorded_as_such(busy: Lab, cluster: Cluster, cli: Any) -> None:
    busy.wait_for_step(1, "unwanted")
    (job_id,) = cluster.job_ids("unwanted")
    row = status(busy, cli, "unwanted")
    assert (row["state"], row["host"], row["note"]) == ("running", "n1", f"job {job_id} of Slurm")
    assert row["epoch"] == 1
    cluster.call("scancel", str(job_id))
    reason = busy.queue / "failed/unwanted.reason.txt"
    wait_until(reason.exists, 60)
    assert f"canceled in Slurm (job {job_id})" in reason.read_text()
    assert busy.where("unwanted") == "failed"
    assert checks.state_of(busy.run("unwanted")) == "preempted"
    assert cluster.job_ids("unwanted") == [job_id]


def test_a_slurmd_that_is_killed_and_started_again_disturbs_no_job(unlucky: Lab, cluster: Cluster) -> None:
    unlucky.wait_for_step(1, "unlucky")
    (worker,) = unlucky.processes("worker")
    cluster.kill_slurmd("n2")
    unlucky.wait_for_step(checks.global_step(unlucky.run("unlucky")) + 1, "unlucky")
    cluster.start_node("n2")
    unlucky.wait_for_step(checks.global_step(unlucky.run("unlucky")) + 1, "unlucky")
    assert unlucky.processes("worker") == [worker]


@pytest.mark.usefixtures("power_cut")
def test_cancel_and_hold_of_what_slurm_has_not_started(start: Start, cluster: Cluster, cli: Any) -> None:
    lab = start("waits", {"wrong": 0.0, "early": 0.0}, "--sbatch-arg=--hold")
    wait_until(lambda: cluster.job_ids("wrong") and cluster.job_ids("early"))
    (job_id,) = cluster.job_ids("wrong")
    assert status(lab, cli, "wrong")["note"] == f"waits in Slurm (JobHeldUser), job {job_id}"
    assert cluster.call("squeue", "--noheader", f"--jobs={job_id}", "--format=%C") == "2", "for its num_workers"
    nowhere = status(lab, cli, "wrong", SLURM_CONF="/nowhere/slurm.conf", PATH="/nowhere")
    assert nowhere["note"] == f"in Slurm on lab, job {job_id}; squeue gives no answer here"
    assert f"wrong: waits in Slurm (JobHeldUser), job {job_id}" in cli("reclaim", "wrong", "--queue", lab.queue).stdout

    canceled, held = (cli(verb, name, "--queue", lab.queue) for verb, name in (("cancel", "wrong"), ("hold", "early")))
    assert (canceled.stdout, held.stdout) == ("wrong: canceled\n", "early: held\n")
    assert (lab.where("wrong"), lab.where("early")) == ("failed", "held")
    assert "canceled by" in (lab.queue / "failed/wrong.reason.txt").read_text()
    assert lab.wait() == 0, "what was canceled has not failed"
    assert [cluster.state(job) for name in ("wrong", "early") for job in cluster.job_ids(name)] == ["CANCELLED"] * 2
    assert list((lab.queue / "slurm").iterdir()) == []


def test_a_submitter_killed_before_its_record_neither_loses_nor_doubles_jobs(
    start: Start, server: ForkServer, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed first before Slurm has the job, then before the runner knows its number."""
    with monkeypatch.context() as patch:
        patch.setenv("PATH", shim(tmp_path / "before", "sbatch", ["kill -9 $PPID"]))
        lab = start("killed", {"once": 0.0}, num_epochs=1)
        assert lab.wait() == -signal.SIGKILL
    assert lab.where("once") == "running"
    assert cluster.job_ids("once") == []

    with monkeypatch.context() as patch:
        patch.setenv("PATH", shim(tmp_path / "after", "sbatch", ['"{real}" "$@" >/dev/null; kill -9 $PPID']))
        lab.start("--slurm", ONE_CPU)
        assert lab.wait() == -signal.SIGKILL
    assert lab.where("once") == "running"
    assert len(cluster.job_ids("once")) == 1

    lab.start("--slurm", ONE_CPU)
    assert lab.wait(120) == 0, lab.all_output()
    assert len(cluster.job_ids("once")) == 1
    assert is_whole(lab, server, "once")
    assert len(list((lab.queue / "logs").glob("once.[0-9].log"))) == 1


def test_two_jobs_are_done_one_of_them_over_its_time_limit(busy: Lab, server: ForkServer, cluster: Cluster) -> None:
    """It saves when Slurm warns, puts itself back, and comes to the same bits."""
    assert busy.wait(400) == 0, "what was canceled has not failed"
    (job_id,) = cluster.job_ids("timed")
    output = (busy.queue / f"logs/timed.slurm-{job_id}.log").read_text()
    assert output.count("returned to Slurm's queue") == 1
    assert [f"start {number} of job {job_id}" in output for number in range(3)] == [True, True, False]
    assert all(is_whole(busy, server, name) for name in ("one", "timed"))
    assert all(len(cluster.job_ids(name)) == 1 for name in ("one", "timed"))
    assert len(list((busy.queue / "logs").glob("timed.[0-9].log"))) == 2
    assert busy.leftovers() == []
    assert list((busy.queue / "slurm").iterdir()) == []
    assert os.listdir(busy.queue / "running") == []  # noqa: PTH208


@pytest.mark.usefixtures("power_cut")
def test_a_node_that_fails_loses_nothing(unlucky: Lab, server: ForkServer, cluster: Cluster) -> None:
    """Slurm starts the job again when it has noticed."""
    assert unlucky.wait(400) == 0, unlucky.all_output()
    assert is_whole(unlucky, server, "unlucky")
    assert len(list((unlucky.queue / "logs").glob("unlucky.[0-9].log"))) == 2
    assert len(cluster.job_ids("unlucky")) == 1


def test_a_submission_inside_an_allocation_is_no_part_of_it(start: Start, server: ForkServer, cluster: Cluster) -> None:
    """Nor do options that stand in variables make it another kind of job."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ALLOCATION, **RANKS}.items():
            patch.setenv(name, value)
        lab = start("inside", {"inside": 0.0}, num_epochs=1)
        (line,) = wait_until(lambda: [line for line in lab.all_output().splitlines() if "set aside" in line])
    assert "RANK, " in line
    assert "SLURM_* (" in line
    assert lab.wait(240) == 0, lab.all_output()
    assert is_whole(lab, server, "inside")
    assert len(cluster.job_ids("inside")) == 1


def test_a_job_on_two_nodes_finishes_there(start: Start, server: ForkServer) -> None:
    """A process on each, as two on one machine."""
    lab = start("nodes", {"wide": 0.0}, "--nodes", "2", "--partition", "both", num_processes=2, num_epochs=1)
    assert lab.wait(240) == 0, lab.all_output()
    assert is_whole(lab, server, "wide")
    assert sorted(path.name for path in (lab.queue / "logs").glob("wide.*")) == [
        "wide.1.log", "wide.node1.1.log", *(path.name for path in (lab.queue / "logs").glob("wide.slurm-*.log")),
    ]  # fmt: skip


def test_a_job_waits_for_the_full_disk_of_its_run(start: Start, cluster: Cluster, tmp_path: Path) -> None:
    """Its node cannot write there; the submitter sees that too, and hands it over again when there is room."""
    with own_disk(tmp_path / "disk", "size=16m") as disk:
        subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'rest'}", "bs=4k"], capture_output=True)
        lab = start("full", {"full": 0.0}, "--retry-after", "1", num_epochs=1, model_dir=str(disk / "run"))
        wait_until(lambda: "jobs that write there wait until that is over" in lab.all_output())
        assert lab.where("full") == "pending"
        (disk / "rest").unlink()
        assert lab.wait(120) == 0, lab.all_output()
        assert checks.state_of(disk / "run") == "finished"
    assert lab.where("full") == "done"
    assert len(cluster.job_ids("full")) == 2
