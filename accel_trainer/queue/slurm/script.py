"""What sbatch is given: its arguments and the text of the script. Nothing is started here."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.core.child_environment import PYTHON_MADE, child_environment
from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import HOST_VARIABLE
from accel_trainer.core.processes import Program
from accel_trainer.launch.command import SHUTDOWN_S, LaunchOptions, refuse_uneven
from accel_trainer.queue.dependencies import Requirements
from accel_trainer.queue.slurm.client import COMMENT, NodeKind

# Slurm may send its signal half a minute early, and what is asked to save has SHUTDOWN_S.
WARN_S = SHUTDOWN_S + 30
LEAST_S = 300.0
# Options that accel-train sets itself: with another value a job would be lost, doubled, or not what was asked for.
OURS = {
    "--array": "every job of the queue is one job of Slurm",
    "-a": "every job of the queue is one job of Slurm",
    "--comment": "it has the token of the job's claim",
    "--no-requeue": "what is preempted resumes",
    "--nodes": "use `nodes` of run-queue",
    "-N": "use `nodes` of run-queue",
    "--ntasks": "use `num_processes`",
    "-n": "use `num_processes`",
    "--parsable": "it is given already",
    "--test-only": "nothing would be trained",
    "--wait": "run-queue waits itself",
    "-W": "run-queue waits itself",
    "--wrap": "the script is accel-train's",
}
# With one of these the user has said how many CPUs a job has; the first two also stand in the environment.
OF_CPUS = ("--cpus-per-gpu", "--exclusive", "--cpus-per-task", "-c", "--mincpus", "--cores-per-socket", "-B")
# Threads that load images, where a job does not say how many: as the loader has at most.
THREADS = 8
# Switches of Python that a node's own profile may set.
OF_THE_NODE = ("PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONBREAKPOINT")
PORT = 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'


@dataclass(frozen=True)
class SlurmOptions:
    """What each job is to have in Slurm, as the user has asked for."""

    partition: str | None = None
    time: str | None = None
    gpus_per_job: int | None = None
    nodes: int = 1
    sbatch_args: tuple[str, ...] = ()

    def refuse_wrong(self) -> None:
        """Raises UserError."""
        for word in self.sbatch_args:
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            if not word.startswith("-"):
                raise UserError(
                    f"{word!r} is no option of sbatch", hint="write one word, such as --mem=32G", option="sbatch_arg"
                )
            if name in OURS:
                raise UserError(f"{word}: {OURS[name]}", option="sbatch_arg")
        if self.gpus_per_job is not None:
            self._per_node(self.gpus_per_job)
        if self.time is not None and seconds_of(self.time) < LEAST_S:
            raise UserError(
                f"{self.time} leaves no time to train: a job is asked to save {WARN_S} s before", option="time"
            )

    def refuse_unfit(self, needs: Requirements) -> None:
        """Raises UserError for a job that cannot be cut into as many nodes."""
        if needs.num_processes is not None:
            refuse_uneven(needs.num_processes, self.nodes)

    def gpus_per_node(self, needs: Requirements) -> int | None:
        """GPUs on each node: as many as the job has processes, where it says so; None where none are asked for."""
        if self.gpus_per_job is None:
            return None
        return self._per_node(needs.num_processes or self.gpus_per_job)

    def _per_node(self, gpus: int) -> int:
        if gpus % self.nodes:
            raise UserError(f"{gpus} do not divide over {self.nodes} nodes", option="gpus_per_job")
        return gpus // self.nodes


def seconds_of(time: str) -> float:
    """Of a time as sbatch takes it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S. Raises UserError."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if found is None:
        raise UserError(
            f"{time!r} is not minutes, hours:minutes:seconds or days-hours, as sbatch takes it", option="time"
        )
    days, *parts = [None if part is None else int(part) for part in found.groups()]
    hours, minutes, seconds = parts if days is not None or parts[2] is not None else [None, parts[0], parts[1]]
    return ((days or 0) * 24 + (hours or 0)) * 3600.0 + (minutes or 0) * 60 + (seconds or 0)


def cpus_per_node(needs: Requirements, options: SlurmOptions, nodes: NodeKind) -> int | None:
    """CPUs of a job on each node: one for each thread that loads images, in each process, but no more than its part of
    a node, or than a node has; None where the user or the partition says how many."""
    words = (word.partition("=")[0] if word.startswith("--") else word[:2] for word in options.sbatch_args)
    if any(word in OF_CPUS for word in words) or any(name in os.environ for name in _variables(OF_CPUS[:2])):
        return None
    gpus = options.gpus_per_node(needs)
    if gpus is not None and nodes.cpus_per_gpu is not None:
        return None
    processes = gpus or max(1, (needs.num_processes or 1) // options.nodes)
    threads = THREADS if needs.num_workers is None else max(1, needs.num_workers)
    most = nodes.cpus * gpus // nodes.gpus if gpus is not None and nodes.gpus is not None else nodes.cpus
    return max(1, min(processes * threads, most))


def _variables(options: Sequence[str]) -> list[str]:
    return [f"SBATCH_{option.removeprefix('--').upper().replace('-', '_')}" for option in options]


def arguments(
    name: str, token: str, needs: Requirements, options: SlurmOptions, logs: Path, nodes: NodeKind | None = None
) -> list[str]:
    """The arguments of sbatch; the user's own come last, so that they count. nodes: what those of the partition are,
    where that is known."""
    output = str(logs.absolute()).replace("%", "%%")
    # To the step where there are several nodes: an srun that gets a signal to end kills what it has started.
    receiver = "B:" if options.nodes == 1 else ""
    given = [
        f"--job-name={name}",
        f"--comment={COMMENT}{token}",
        "--requeue",
        "--open-mode=append",
        f"--output={output}/{name}.slurm-%j.log",
        f"--signal={receiver}TERM@{WARN_S}",
    ]
    given += [f"--partition={options.partition}"] if options.partition is not None else []
    given += [f"--time={options.time}"] if options.time is not None else []
    given += [f"--nodes={options.nodes}", "--ntasks-per-node=1"]
    if (gpus := options.gpus_per_node(needs)) is not None:
        given.append(f"--gpus-per-node={gpus}")
    if nodes is not None and (cpus := cpus_per_node(needs, options, nodes)) is not None:
        given.append(f"--cpus-per-task={cpus}")
    return [*given, *options.sbatch_args]


def script(queue: Path, token: str, launch: LaunchOptions, nodes: int) -> str:
    """Begins the job's claim, on each of its nodes. The shell becomes what it starts, which so gets its signals."""
    command = Program.SLURM_JOB.command("--queue", str(queue.absolute()), "--token", token, *_launch_arguments(launch))
    lines = ["#!/bin/bash", f"unset {HOST_VARIABLE} {' '.join(OF_THE_NODE)}", *_exports()]
    if nodes == 1:
        return "\n".join([*lines, f"exec {shlex.join(command)}", ""])
    port = shlex.join([sys.executable, "-c", PORT])
    # Since Slurm 22.05 a step has not the CPUs of its job's tasks by itself.
    lines.append('[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"')
    step = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--open-mode=append"]
    lines.append(f'exec {shlex.join([*step, *command])} --nodes {nodes} --port "$({port})"')
    return "\n".join([*lines, ""])


def _launch_arguments(launch: LaunchOptions) -> Sequence[str]:
    config = None if launch.config is None else launch.config.absolute()
    return LaunchOptions(config, launch.num_processes, cpu=launch.cpu).argv()


def _exports() -> list[str]:
    """What the job needs of our environment, also where a cluster passes none of it on."""
    made = child_environment()
    found = {name: made[name] for name in (ALLOW_VARIABLE, "PYTHONPATH", *PYTHON_MADE) if name in made}
    return [f"export {name}={shlex.quote(value)}" for name, value in found.items()]
