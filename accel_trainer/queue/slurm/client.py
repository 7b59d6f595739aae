"""The commands of Slurm that are used, and nothing else starts them. None is waited for longer than it is worth."""

import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from accel_trainer.core.child_environment import SLURM, child_environment
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import parent_death_signal

# The comment of a job of Slurm has the token of its claim: so it is found again without its id.
COMMENT = "accel-train:"
# As long as a controller under load may take; what is only shown is not waited for so long.
ANSWER_S, QUICK_ANSWER_S = 60.0, 4.0
FIELDS = "%i|%T|%r|%N|%M|%k"
# Of a submission that is refused for now: so many are waiting already.
FULL = re.compile(r"\w*Submit\w*Limit|temporarily (unable|unavailable)", re.I)
UNANSWERED = re.compile(r"timed out|contact|connect|communication|Zero Bytes", re.I)


class SlurmError(UserError):
    """A command of Slurm did not do what it was asked for."""


class NoSlurm(SlurmError):
    """There is no such command here, or no configuration of Slurm."""


class SlurmTimeout(SlurmError):
    """There was no answer in time: what was asked for may have been done."""


class SubmitLimit(SlurmError):
    """Not now: as many jobs as are allowed are waiting."""


@dataclass(frozen=True)
class SlurmJob:
    """What Slurm reports of a job: its state (`RUNNING`), why it waits, on which nodes it is, and for how long."""

    id: int
    state: str
    reason: str = "None"
    nodes: str = ""
    elapsed_s: float | None = None

    @property
    def description(self) -> str:
        """The state for a message."""
        match self.state:
            case "PENDING":
                return f"waits in Slurm ({self.reason}), job {self.id}"
            case "RUNNING":
                return f"running on node {self.nodes}, job {self.id} of Slurm"
            case _:
                return f"{self.state.lower()} in Slurm, job {self.id}"


@dataclass(frozen=True)
class NodeKind:
    """The least that nodes of a partition have: CPUs, and GPUs where all have some. cpus_per_gpu: what a job gets of
    itself, where the partition says so."""

    cpus: int
    gpus: int | None = None
    cpus_per_gpu: int | None = None


def nodes_of(partition: str | None) -> NodeKind | None:
    """What the nodes of a partition are, by default of the cluster's default one; None where that is not known. Raises
    SlurmError."""
    chosen = [] if partition is None else [f"--partition={partition}"]
    rows = [line.split("|") for line in _call(["sinfo", "--noheader", "--format=%P|%c|%G", *chosen]).splitlines()]
    rows = [row for row in rows if len(row) == 3 and (partition is not None or row[0].endswith("*"))]
    cpus = [int(found[0]) for _, text, _ in rows if (found := re.match(r"\d+", text))]
    if not cpus:
        return None
    gpus = [sum(map(int, re.findall(r"\bgpu(?::[^:,(]+)?:(\d+)", text))) for _, _, text in rows]
    about = _call(["scontrol", "show", "partition", "--oneliner", rows[0][0].rstrip("*")])
    given = re.search(r"\bDefCpuPerGPU=(\d+)", about)
    return NodeKind(min(cpus), min(gpus) or None, int(given[1]) if given else None)


def cluster_name() -> str:
    """The cluster whose commands these are. Raises SlurmError."""
    found = re.search(r"^ClusterName\s*=\s*(\S+)", _call(["scontrol", "show", "config"]), re.M)
    if found is None:
        raise SlurmError("scontrol show config names no cluster")
    return found[1]


def submit(arguments: Sequence[str], script: str) -> int:
    """The id of a new job. Raises SlurmError; of one for which there is SlurmTimeout it is not known."""
    answer = _call(["sbatch", "--parsable", *arguments], text=script)
    if (found := re.search(r"^(\d+)(;\S*)?$", answer, re.M)) is None:
        raise SlurmTimeout(f"sbatch has printed no number of a job: {answer.strip()!r}")
    return int(found[1])


def jobs_of(user: str, timeout_s: float = ANSWER_S) -> Mapping[str, SlurmJob]:
    """A user's jobs that have come from a queue, by the tokens of their claims; those that are over for a few minutes.

    Raises SlurmError.
    """
    listing = _call(["squeue", "--noheader", "--states=all", f"--user={user}", f"--format={FIELDS}"], timeout_s)
    return {token: job for token, job in _parsed(listing) if token is not None}


def job_of(job_id: int, token: str) -> SlurmJob | None:
    """The job of a claim, by both; None if Slurm does not know it, or no more, or the job is none of this claim: of its
    id nothing but a file is known. Raises SlurmError."""
    try:
        listing = _call(["squeue", "--noheader", "--states=all", f"--jobs={job_id}", f"--format={FIELDS}"])
    except SlurmTimeout:
        raise
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    return next((job for found, job in _parsed(listing) if found == token), None)


def cancel_waiting(job_id: int) -> None:
    """Cancel a job that was not started, or waits to be started again. Raises SlurmError."""
    _call(["scancel", "--state=PENDING", str(job_id)])


def requeue(job_id: int) -> None:
    """End a job that is running, to be started again. Raises SlurmError."""
    _call(["scontrol", "requeue", str(job_id)])


def _call(command: Sequence[str], timeout_s: float = ANSWER_S, text: str = "") -> str:
    name = command[0]
    if shutil.which(name) is None:
        raise NoSlurm(f"{name} is not here: `slurm` is for machines with the commands of Slurm")
    try:
        # A session of its own: Ctrl-C must not end a submission half-way.
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            errors="replace",
            env={**child_environment(SLURM), "LC_ALL": "C"},
            start_new_session=True,
            preexec_fn=_unmoved(),
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmTimeout(f"{name} has not answered in {timeout_s:.0f} s") from error
    except OSError as error:
        raise NoSlurm(f"{name} cannot be started: {error.strerror}") from error
    if done.returncode == 0:
        return done.stdout
    message = _last_line(done.stderr) or f"exit code {done.returncode}"
    kind: type[SlurmError] = SlurmError
    if "configuration" in message:
        kind = NoSlurm
    elif done.returncode < 0 or UNANSWERED.search(message):
        kind = SlurmTimeout
    elif FULL.search(done.stderr):
        kind = SubmitLimit
    raise kind(f"{name}: {message}")


def _unmoved() -> Callable[[], None]:
    """Slurm signals all that a job has started to end, the command as well by which the job has asked for it. It is not
    moved by that; and it is gone when we are."""
    end_with_parent = parent_death_signal(signal.SIGKILL)

    def prepare() -> None:
        end_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    return prepare


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^\w+: (error|fatal): ", "", lines[-1]) if lines else ""


def _parsed(listing: str) -> Iterator[tuple[str | None, SlurmJob]]:
    """Of squeue's lines: the token of the claim, where a job has come from a queue, and the job. Other lines are passed
    over: a comment may have line breaks, and sites print what they like."""
    for line in listing.splitlines():
        fields = line.strip().split("|", 5)
        if len(fields) < 6 or (digits := re.match(r"\d+", fields[0])) is None:
            continue
        _, state, reason, nodes, elapsed, comment = fields
        token = comment.removeprefix(COMMENT) if comment.startswith(COMMENT) else None
        yield token, SlurmJob(int(digits[0]), state, reason, nodes, _seconds(elapsed))


def _seconds(text: str) -> float | None:
    """Of '3-04:05:06', '04:05:06' or '05:06'."""
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
