"""What Slurm is asked for, and what its answers mean, without a Slurm."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dirty_shell import ALLOCATION, SET_ASIDE
from helpers import dead_token, said_by, write_job
from slurm.cluster import shim

from accel_trainer.core.lease import Owner, is_dead_token, this_host
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.outcome import OutcomeKind
from accel_trainer.queue.control import ControlAction, Requests
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.heartbeat import HeartbeatObserver
from accel_trainer.queue.layout import JobState, QueuedJob
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.slurm import client, reconcile
from accel_trainer.queue.slurm.client import NodeKind, NoSlurm, SlurmError, SlurmJob, SlurmTimeout, SubmitLimit
from accel_trainer.queue.slurm.reconcile import (
    GONE_S,
    ON_ITS_WAY_S,
    Reconciler,
    Record,
    Records,
    end_waiting,
    outcome_from_slurm,
    outcome_of_unknown,
)
from accel_trainer.queue.slurm.script import SlurmOptions, arguments, script, seconds_of
from accel_trainer.queue.store import QueueStore
from accel_trainer.run.status import RunState


@pytest.fixture
def queue() -> QueueStore:
    queue = QueueStore(Path("training_queue"))
    queue.create()
    return queue


def handed_over(queue: QueueStore, name: str = "job", token: str | None = None, **changes: Any) -> QueuedJob:
    path = write_job(queue.folder / f"{name}.json", **changes)
    owner = Owner.of_cluster("lab")
    owner = owner if token is None else Owner(owner.host, token)
    claimed = queue.claim(QueuedJob(name, path, JobState.PENDING), owner)
    assert claimed is not None
    return claimed


# -- claims ------------------------------------------------------------------------------------------------------------


def test_a_claim_of_a_cluster_is_nobodys_that_could_be_dead_or_silent(queue: QueueStore) -> None:
    """Not even when the process is gone that has handed it over."""
    claimed = handed_over(queue, "a.b@c", dead_token())
    (found,) = queue.jobs(JobState.RUNNING)
    assert found == claimed
    assert (found.name, found.owner.host, found.owner.cluster) == ("a.b@c", "slurm+lab", "lab")
    assert is_dead_token(found.owner.token)
    assert not found.owner.is_dead()
    assert HeartbeatObserver(queue).silence_s([found]) == {}
    assert Owner.new().cluster is None
    assert Owner.of_cluster("a/b c@d").cluster == "a_b_c_d"


def test_every_start_of_a_claim_is_a_process_of_its_own() -> None:
    claim = Owner.of_cluster("lab")
    first, second = claim.start(), claim.start()
    assert first.token != second.token
    assert first.host == this_host()
    assert not first.is_dead(), "it is this process"
    assert Owner(this_host(), f"{dead_token()}-{claim.token}").is_dead()
    assert all(claim.has_started(start.token) for start in (first, second, claim))
    assert not Owner.of_cluster("lab").has_started(first.token)
    assert not Owner.new().has_started(first.token)


# -- the script and the words of sbatch -----------------------------------------------------------------------------


def test_the_script_becomes_its_job_so_that_it_gets_the_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCEL_TRAIN_ALLOW_IMPORTS", "my_lab")
    monkeypatch.setenv("PYTHONPATH", "a path/with $words")
    text = script(Path("a queue"), "token", LaunchOptions(Path("c.yaml"), num_processes=2), 1)
    *_, last = text.splitlines()
    words = shlex.split(last)
    assert words[:1] == ["exec"]
    assert words[2:] == [
        "-m", "accel_trainer.workers.slurm_job", "--queue", str(Path("a queue").absolute()), "--token", "token",
        "--config", str(Path("c.yaml").absolute()), "--num-processes", "2",
    ]  # fmt: skip
    on_node = {"ACCEL_TRAIN_HOST": "here", "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error"}
    said = subprocess.run(["bash"], input=text.replace(last, "env"), capture_output=True, text=True, env=on_node).stdout
    assert "PYTHONSAFEPATH=1\n" in said
    assert "PYTHONINSPECT" not in said
    assert "PYTHONWARNINGS" not in said
    assert "PYTHONPATH=a path/with $words\n" in said
    assert "ACCEL_TRAIN_ALLOW_IMPORTS=my_lab\n" in said
    assert "ACCEL_TRAIN_HOST" not in said, "every node has its own name"


def test_on_several_nodes_steps_get_the_signal_and_one_free_port() -> None:
    text = script(Path("queue"), "token", LaunchOptions(), 3)
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    last = text.splitlines()[-1]
    assert last.startswith("exec srun --nodes=3 --ntasks=3 --ntasks-per-node=1 ")
    port = subprocess.run(["bash"], input="echo " + last[last.index("--port") :], capture_output=True, text=True)
    assert 1024 < int(port.stdout.split()[1]) < 65536
    one, three = (arguments("job", "t", Requirements(), SlurmOptions(nodes=nodes), Path("logs")) for nodes in (1, 3))
    assert "--signal=B:TERM@120" in one
    assert "--signal=TERM@120" in three


def test_the_options_for_sbatch_follow_from_the_job(tmp_path: Path) -> None:
    wishes = SlurmOptions("gpu", "1-00:00", gpus_per_job=4, nodes=2, sbatch_args=("--mem=32G", "--signal=B:TERM@300"))
    wishes.refuse_wrong()
    words = arguments("my job", "t0", Requirements(), wishes, tmp_path / "50%")
    for word in (
        "--job-name=my job", "--comment=accel-train:t0", "--requeue", "--open-mode=append", "--partition=gpu",
        "--time=1-00:00", "--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=2",
        f"--output={tmp_path}/50%%/my job.slurm-%j.log",
    ):  # fmt: skip
        assert word in words
    assert words[-2:] == ["--mem=32G", "--signal=B:TERM@300"], "what the user says counts"
    assert "--gpus-per-node=4" in arguments("job", "t", Requirements(num_processes=8), wishes, tmp_path)
    assert not [
        word for word in arguments("job", "t", Requirements(num_processes=8), SlurmOptions(), tmp_path) if "gpu" in word
    ]


@pytest.mark.parametrize(
    ("wishes", "told"),
    [
        (
            SlurmOptions(sbatch_args=("--array=1-3",)),
            "`sbatch_arg`: --array=1-3: every job of the queue is one job of Slurm",
        ),
        (SlurmOptions(sbatch_args=("-N2",)), "`sbatch_arg`: -N2: use `nodes` of run-queue"),
        (SlurmOptions(sbatch_args=("mem=3",)), "`sbatch_arg`: 'mem=3' is no option of sbatch"),
        (SlurmOptions(time="4"), "`time`: 4 leaves no time to train: a job is asked to save 120 s before"),
        (SlurmOptions(time="1h"), "`time`: '1h' is not minutes, hours:minutes:seconds or days-hours"),
        (SlurmOptions(gpus_per_job=3, nodes=2), "`gpus_per_job`: 3 do not divide over 2 nodes"),
    ],
)
def test_wishes_that_make_no_sense_are_refused_in_a_line(wishes: SlurmOptions, told: str) -> None:
    assert said_by(wishes.refuse_wrong).startswith(told)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("5:30", 330), ("1:02:03", 3723), ("2-3", 183600), ("2-3:4", 183840), ("2-3:4:5", 183845)],
)
def test_time_limits_are_written_as_sbatch_takes_them(time: str, seconds: int) -> None:
    """Its manual lists these forms."""
    assert seconds_of(time) == seconds


GPU_NODES, CPU_NODES = NodeKind(64, 4), NodeKind(4)


@pytest.mark.parametrize(
    ("needs", "options", "nodes", "cpus"),
    [
        (Requirements(), SlurmOptions(gpus_per_job=4), GPU_NODES, 32),
        (Requirements(num_processes=2), SlurmOptions(gpus_per_job=4), GPU_NODES, 16),
        (Requirements(num_workers=24), SlurmOptions(gpus_per_job=2), GPU_NODES, 32),  # half of the node
        (Requirements(num_workers=0), SlurmOptions(gpus_per_job=2), GPU_NODES, 2),
        (Requirements(), SlurmOptions(gpus_per_job=4, nodes=2), GPU_NODES, 16),
        (Requirements(), SlurmOptions(gpus_per_job=1), NodeKind(16), 8),
        (Requirements(), SlurmOptions(gpus_per_job=1), NodeKind(16, 4, cpus_per_gpu=3), None),
        (Requirements(), SlurmOptions(), NodeKind(16, 4, cpus_per_gpu=3), 8),
        (Requirements(), SlurmOptions(), CPU_NODES, 4),
        (Requirements(num_processes=2, num_workers=1), SlurmOptions(), CPU_NODES, 2),
        (Requirements(), SlurmOptions(sbatch_args=("--cpus-per-task=3",)), GPU_NODES, None),
        (Requirements(), SlurmOptions(sbatch_args=("-c3",)), GPU_NODES, None),
        (Requirements(), SlurmOptions(sbatch_args=("--exclusive",)), GPU_NODES, None),
        (Requirements(), SlurmOptions(), None, None),
    ],
)
def test_a_job_has_a_cpu_for_each_thread_that_loads(
    needs: Requirements, options: SlurmOptions, nodes: NodeKind | None, cpus: int | None, tmp_path: Path
) -> None:
    words = arguments("job", "t", needs, options, tmp_path, nodes)
    ours = [word for word in words if word.startswith("--cpus") and word not in options.sbatch_args]
    assert ours == ([] if cpus is None else [f"--cpus-per-task={cpus}"])


def test_cpus_of_the_users_environment_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_CPUS_PER_GPU", "5")
    words = arguments("job", "t", Requirements(), SlurmOptions(gpus_per_job=1), tmp_path, GPU_NODES)
    assert not any(word.startswith("--cpus") for word in words)


@pytest.mark.parametrize(
    ("partition", "rows", "about", "expected"),
    [
        (None, "cpu*|8+|(null)\ngpu|64|gpu:a100:4(S:0-1)", "PartitionName=cpu", NodeKind(8)),
        ("gpu", "gpu|64|gpu:a100:4(S:0-1)\ngpu|48|gpu:2", "JobDefaults=DefCpuPerGPU=6 x", NodeKind(48, 2, 6)),
        ("gpu", "gpu|64|gpu:a100:2,gpu:v100:2", "", NodeKind(64, 4)),
        ("gpu", "", "", None),
        (None, "gpu|64|gpu:4", "", None),  # no partition is the default one
    ],
)
def test_what_the_nodes_of_a_partition_are(
    partition: str | None,
    rows: str,
    about: str,
    expected: NodeKind | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(tmp_path, monkeypatch, "sinfo", f"printf '{rows}'")
    answering(tmp_path, monkeypatch, "scontrol", f"echo '{about}'")
    assert client.nodes_of(partition) == expected


def test_options_of_the_wrong_kind_of_run_are_refused_in_a_line(cli: Any) -> None:
    for words, told in (
        (("--partition", "gpu"), "--partition: only with --slurm"),
        (("--nodes", "2"), "--nodes: only with --slurm"),
        (("--slurm", "--slots", "2"), "--slots: not with --slurm, which decides where and when a job runs"),
        (("--slurm", "--gpus", "0"), "--gpus: not with --slurm, which decides where and when a job runs"),
    ):
        result = cli("run-queue", *words)
        assert (result.returncode, result.stderr) == (2, f"error: {told}\n")
    nowhere = cli("run-queue", "--slurm", PATH="/nowhere")
    assert nowhere.returncode == 2
    assert nowhere.stderr == "error: scontrol is not here: --slurm is for machines with the commands of Slurm\n"


# -- answers -------------------------------------------------------------------------------------------------------


def answering(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, *lines: str) -> None:
    monkeypatch.setenv("PATH", shim(folder / name, name, lines))


def test_commands_of_slurm_get_nothing_of_the_allocation_they_are_called_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**ALLOCATION, **SET_ASIDE, "SBATCH_ACCOUNT": "lab", "SLURM_CONF": "mine"}.items():
        monkeypatch.setenv(name, value)
    answering(tmp_path, monkeypatch, "sbatch", f"env >{tmp_path}/environment; echo 4711")
    assert client.submit([], "") == 4711
    given = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    assert given.keys() & {*ALLOCATION, *SET_ASIDE} == {"PYTHONHASHSEED"}
    assert (given["PYTHONHASHSEED"], given["SBATCH_ACCOUNT"], given["SLURM_CONF"]) == ("0", "lab", "mine")


POLICY = "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, or size)"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", SlurmTimeout),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            SlurmTimeout,
        ),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", SubmitLimit),
        (POLICY, SlurmError),
        ("sbatch: fatal: Could not establish a configuration source", NoSlurm),
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", SlurmError),
    ],
)
def test_a_submission_that_fails_is_known_to_have_been_refused_or_not(
    said: str, kind: type[SlurmError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(tmp_path, monkeypatch, "sbatch", f"echo {shlex.quote(said)} >&2; exit 1")
    with pytest.raises(SlurmError) as caught:
        client.submit([], "script")
    assert type(caught.value) is kind
    (line,) = caught.value.problems
    assert line == f"sbatch: {said.splitlines()[-1].split(': ', 2)[2]}"


def test_numbers_and_lines_of_slurm_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(tmp_path, monkeypatch, "sbatch", "cat > /dev/null", "echo '123;lab'")
    assert client.submit([], "script") == 123
    lines = (
        "7|RUNNING|None|gpu[1-2]|1-02:03:04|accel-train:abc-1",
        "8|PENDING|Nodes required for job are DOWN|||accel-train:def-2",
        "9_[1-3]|PENDING|Priority||0:00|of somebody else",
        "of two lines",
        "",
        "slurm: a word of the site | | | | |",
    )
    answering(tmp_path, monkeypatch, "squeue", f"echo {shlex.quote(chr(10).join(lines))}")
    found = client.jobs_of("me")
    assert found == {
        "abc-1": SlurmJob(7, "RUNNING", "None", "gpu[1-2]", 93784.0),
        "def-2": SlurmJob(8, "PENDING", "Nodes required for job are DOWN"),
    }
    assert found["def-2"].description == "waits in Slurm (Nodes required for job are DOWN), job 8"
    assert found["abc-1"].description == "running on node gpu[1-2], job 7 of Slurm"


def test_a_squeue_that_hangs_keeps_nobody_from_a_status(
    queue: QueueStore, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = handed_over(queue)
    Records(queue).write(claimed.owner.token, Record("me", 12))
    answering(tmp_path, monkeypatch, "squeue", "exec sleep 600")
    result = cli("status", "--json")
    assert result.returncode == 0
    (row,) = json.loads(result.stdout)
    assert (row["state"], row["note"]) == ("running", "in Slurm on lab, job 12; squeue gives no answer here")


def test_where_there_is_no_slurm_its_jobs_are_left_alone(queue: QueueStore, cli: Any) -> None:
    claimed = handed_over(queue)
    asked = cli("reclaim", PATH="/nowhere")
    assert asked.stdout == (
        "job: is in Slurm; scontrol is not here: --slurm is for machines with the commands of Slurm\n"
    )
    asked = cli("cancel", "job", "--no-wait", PATH="/nowhere")
    assert "is asked to stop" in asked.stdout
    assert "scontrol is not here" in asked.stderr
    assert claimed.path.exists()


# -- what becomes of claims ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "record", "kind", "run"),
    [
        ("PENDING", None, None, None),
        ("COMPLETING", Record("me"), None, None),
        ("REQUEUED", None, None, None),
        ("TIMEOUT", None, OutcomeKind.INTERRUPTED, RunState.PREEMPTED),
        ("NODE_FAIL", Record("me"), OutcomeKind.INTERRUPTED, RunState.PREEMPTED),
        ("PREEMPTED", None, OutcomeKind.INTERRUPTED, RunState.PREEMPTED),
        ("CANCELLED", Record("me", 1, "start", ""), OutcomeKind.CANCELED, RunState.PREEMPTED),
        ("FAILED", Record("me", 1), OutcomeKind.FAILED, RunState.FAILED),
        ("OUT_OF_MEMORY", None, OutcomeKind.FAILED, RunState.OUT_OF_MEMORY),
        ("COMPLETED", Record("me", 1, "start", "RUNNING"), OutcomeKind.INTERRUPTED, RunState.PREEMPTED),
    ],
)
def test_what_a_state_of_slurm_means_for_a_claim_that_is_there_still(
    state: str, record: Record | None, kind: OutcomeKind | None, run: RunState | None
) -> None:
    ending = outcome_from_slurm(SlurmJob(1, state), record)
    assert (None if ending is None else ending.kind, None if ending is None else ending.state) == (kind, run)


def test_of_what_slurm_has_forgotten_it_is_remembered_who_ended_it() -> None:
    assert outcome_of_unknown(None).kind is OutcomeKind.INTERRUPTED
    assert outcome_of_unknown(Record("me", 1, "start")).kind is OutcomeKind.INTERRUPTED, "killed without a word"
    assert outcome_of_unknown(Record("me", 1, "start", "COMPLETING", "None")).kind is OutcomeKind.CANCELED
    assert outcome_of_unknown(Record("me", 1, "start", "COMPLETING", "TimeLimit")).kind is OutcomeKind.INTERRUPTED


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set; and a Slurm that knows nothing, of the user 'me'."""
    now = [1000.0]
    monkeypatch.setattr(reconcile.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(client, "jobs_of", lambda user: {})
    monkeypatch.setattr(reconcile, "this_user", lambda: "me")
    return now


@pytest.mark.parametrize(
    ("record", "is_submitter_dead", "after_s"),
    [
        (Record("me"), False, ON_ITS_WAY_S),  # sbatch may be on its way
        (Record("me"), True, GONE_S),
        (Record("me", 7), False, GONE_S),
        (None, True, GONE_S),
        (Record("her", 7), True, None),
    ],
)
def test_what_slurm_does_not_know_is_put_back_by_a_second_look(
    record: Record | None, is_submitter_dead: bool, after_s: float | None, queue: QueueStore, clock: list[float]
) -> None:
    claimed = handed_over(queue, token=dead_token() if is_submitter_dead else None)
    if record is not None:
        Records(queue).write(claimed.owner.token, record)
    reconciler = Reconciler(queue, Retries(queue), "lab")
    assert reconciler.reconcile() == ({claimed: None}, [])
    clock[0] += (after_s or 10_000) - 0.5
    assert reconciler.reconcile() == ({claimed: None}, [])
    clock[0] += 1
    left, settled = reconciler.reconcile()
    if after_s is None:
        assert left == {claimed: None}
        return
    assert left == {}
    assert [one.job.name for one in settled] == ["job"]
    assert [job.name for job in queue.jobs(JobState.PENDING)] == ["job"]
    assert list(queue.paths.slurm.glob("*")) == []


def test_another_clusters_claims_are_not_ours(queue: QueueStore, clock: list[float]) -> None:
    handed_over(queue, token=dead_token())
    assert Reconciler(queue, Retries(queue), "other").reconcile() == ({}, [])


def test_of_a_job_that_slurm_has_ended_is_done_what_was_asked(
    queue: QueueStore, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, failed = handed_over(queue, "held"), handed_over(queue, "failed", retries=1)
    Requests(queue).put(held, ControlAction.HOLD)
    known = {held.owner.token: SlurmJob(1, "CANCELLED"), failed.owner.token: SlurmJob(2, "OUT_OF_MEMORY")}
    monkeypatch.setattr(client, "jobs_of", lambda user: known)
    assert Reconciler(queue, Retries(queue), "lab").reconcile()[0] == {}
    assert queue.states() == {"held": JobState.HELD, "failed": JobState.PENDING}
    (again,) = queue.jobs(JobState.PENDING)
    failures = Retries(queue).of(again)
    assert failures is not None
    assert (failures.number, failures.reason) == (1, "job 2 of Slurm ended (OUT_OF_MEMORY)")


@pytest.mark.parametrize("is_ours", [True, False])
def test_cancel_ends_in_slurm_only_a_job_of_this_claim_whatever_a_record_says(
    queue: QueueStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool
) -> None:
    """The record lies in a shared folder: the number in it may be that of any job of ours."""
    claimed = handed_over(queue)
    Records(queue).write(claimed.token, Record("me", 7))
    token = claimed.token if is_ours else "another"
    answering(tmp_path, monkeypatch, "scontrol", "echo ClusterName = lab")
    answering(
        tmp_path, monkeypatch, "squeue",
        f'case "$*" in *--jobs=7*) echo "7|PENDING|Priority||0:00|accel-train:{token}";; esac',
    )  # fmt: skip
    answering(tmp_path, monkeypatch, "scancel", f'echo "$@" >> {tmp_path}/canceled')
    end_waiting(queue, claimed)
    assert (tmp_path / "canceled").exists() == is_ours


@pytest.mark.parametrize("distributed", ["DEEPSPEED", "FSDP"])
def test_a_node_with_a_default_that_cannot_be_used_holds_the_job_and_says_why(
    queue: QueueStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    distributed: str,
) -> None:
    from accel_trainer.queue.slurm import start as start_module

    config = tmp_path / "home/.cache/huggingface/accelerate/default_config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"distributed_type: {distributed}\n")
    answering(tmp_path, monkeypatch, "scontrol", "exit 1")
    answering(tmp_path, monkeypatch, "squeue", "exit 1")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    claimed = handed_over(queue, dataset="digits")
    monkeypatch.setattr(start_module, "SHOWN_S", 0.0)
    assert start_module.main(["--queue", str(queue.folder), "--token", claimed.token]) == 1
    assert [job.name for job in queue.jobs(JobState.HELD)] == ["job"]
    assert Records(queue).of(claimed.token) is None
    printed = capsys.readouterr()
    assert "job: held; `accel-train release job` when that is put right" in printed.out
    assert f"error: {config}" in printed.err
    assert distributed in printed.err


def test_a_start_that_comes_when_its_claim_is_gone_does_nothing(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accel_trainer.queue.slurm import start as start_module

    monkeypatch.setattr(start_module, "SHOWN_S", 0.0)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    path = write_job(queue.folder / "job.json")
    assert start_module.main(["--queue", str(queue.folder), "--token", "gone"]) == 0
    assert path.exists()
