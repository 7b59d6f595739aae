"""Every operation that changes the state of a job, for `interleave`: what it needs in the queue, and what it does.

All are about a job named `a`. A submission is known by its content, which no other has. After each run of some
operations comes a look of another process, which finishes or undoes what killed ones have left; then each submission
has to be in exactly one place, unless somebody has asked for its removal.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.interleave import DEAD, FileSystem, Killed, Process, Run, further, intercepted, walk, wipe

from accel_trainer.core.errors import UserError
from accel_trainer.core.lease import Owner, this_host
from accel_trainer.core.process_space import space_name
from accel_trainer.launch.outcome import Outcome, OutcomeKind
from accel_trainer.queue.finish import AttemptResult, finish_claim
from accel_trainer.queue.layout import ClaimedJob, JobState, QueuedJob
from accel_trainer.queue.reclaim import requeue
from accel_trainer.queue.retries import Retries
from accel_trainer.queue.store import QueueStore

PENDING, HELD, DONE, FAILED = JobState.PENDING, JobState.HELD, JobState.DONE, JobState.FAILED
# The process that has the claim lives; that of a dead one is nobody's.
LIVING, GONE = 1, 2


@dataclass(frozen=True)
class Queues:
    """Two queues, and the jobs that the operations have found there when they looked."""

    one: QueueStore
    other: QueueStore

    def job(self, state: JobState, name: str = "a") -> QueuedJob:
        return QueuedJob(name, self.one.paths.of(state) / f"{name}.json", state)

    def claim(self, pid: int = LIVING) -> ClaimedJob:
        owner = Owner(this_host(), f"{space_name()}-{pid}-1-{pid:08x}")
        return ClaimedJob("a", self.one.paths.claim("a", owner), owner=owner)

    def ended(self, kind: OutcomeKind) -> object:
        claimed = self.claim()
        result = AttemptResult(Outcome(kind, "why"), claimed.path)
        finished = finish_claim(self.one, Retries(self.one), claimed, result)
        return None if finished.state is None else finished

    def look(self) -> None:
        """What a runner does now and then."""
        for queue in (self.one, self.other):
            for job in queue.claims():
                if job.owner.is_dead():
                    requeue(queue, Retries(queue), job)


Act = Callable[[Queues], object]


@dataclass(frozen=True)
class Operation:
    """needs: the files that are there before. removes: the path of which it may remove the content."""

    name: str
    act: Act
    needs: tuple[str, ...] = ()
    adds: bytes | None = None
    removes: str | None = None


def _add(content: bytes, *, replace: bool = False) -> Act:
    return lambda queues: queues.one.add("a", content, replace=replace)


def _claim(queues: Queues) -> object:
    return queues.one.claim(queues.job(PENDING))


def _finish(state: JobState, reason: str | None = "why", source: JobState = PENDING) -> Act:
    return lambda queues: queues.one.finish(queues.job(source), state, reason)


def _removed(state: JobState) -> Act:
    return lambda queues: queues.one.remove(queues.job(state))


def _move(state: JobState) -> Act:
    return lambda queues: queues.one.move_to(queues.other, queues.job(state))


CLAIM, DEAD_CLAIM = "running/LIVING", "running/GONE"
OPERATIONS = (
    Operation("add", _add(b'{"added": 1}'), adds=b'{"added": 1}'),
    Operation("add another", _add(b'{"added": 2}'), adds=b'{"added": 2}'),
    Operation("add --force", _add(b'{"added": 3}', replace=True), adds=b'{"added": 3}', removes="a.json"),
    Operation("claim", _claim, ("a.json",)),
    Operation("refuse", _finish(FAILED), ("a.json",)),
    Operation("hold", lambda queues: queues.one.hold(queues.job(PENDING)), ("a.json",)),
    Operation("cancel held", _finish(FAILED, source=HELD), ("held/a.json",)),
    Operation("release", lambda queues: queues.one.release(queues.job(HELD)), ("held/a.json",)),
    Operation("retry", lambda queues: queues.one.retry(queues.job(FAILED)), ("failed/a.json",)),
    Operation("finish", lambda queues: queues.ended(OutcomeKind.DONE), (CLAIM, "done/a.json")),
    Operation("fail", lambda queues: queues.ended(OutcomeKind.FAILED), (CLAIM,)),
    Operation("put back", lambda queues: queues.ended(OutcomeKind.INTERRUPTED), (CLAIM,)),
    Operation("hold running", lambda queues: queues.one.hold(queues.claim()), (CLAIM,)),
    Operation("take over", lambda queues: requeue(queues.one, Retries(queues.one), queues.claim()), (CLAIM,)),
    Operation("look", Queues.look, (DEAD_CLAIM,)),
    Operation("rm pending", _removed(PENDING), ("a.json",), removes="a.json"),
    Operation("rm failed", _removed(FAILED), ("failed/a.json",), removes="failed/a.json"),
    Operation("move", _move(PENDING), ("a.json",)),
    Operation("move failed", _move(FAILED), ("failed/a.json",)),
)


def _run(queues: Queues, *, removes: bool = False) -> object:
    """Claim the job, have it done, and perhaps remove it."""
    if (claimed := queues.one.claim(queues.job(PENDING))) is None:
        return None
    queues.one.finish(claimed, DONE)
    if removes:
        queues.one.remove(queues.job(DONE))
    return claimed


# What may happen to a job as soon as it has come to where another operation moves it.
ARRIVED = (
    Operation("claim it", _claim),
    Operation("run it", _run),
    Operation("run and rm it", lambda queues: _run(queues, removes=True), removes="done/a.json"),
    Operation("hold it", lambda queues: queues.one.hold(queues.job(PENDING))),
    Operation("rm it", _removed(PENDING), removes="a.json"),
    Operation("move it", _move(PENDING)),
    Operation("release it", lambda queues: queues.one.release(queues.job(HELD))),
    Operation("retry it", lambda queues: queues.one.retry(queues.job(FAILED))),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}
ARRIVED_BY_NAME = {operation.name: operation for operation in ARRIVED}


class Check:
    """Some operations, run under all schedules on one kind of file system."""

    def __init__(self, operations: Sequence[Operation], system: FileSystem) -> None:
        self.operations, self.system = operations, system
        self.queues = Queues(QueueStore(system.root / "one" / "queue"), QueueStore(system.root / "other" / "queue"))
        for queue in (self.queues.one, self.queues.other):
            queue.create()
        self._states = {
            os.fspath(queue.paths.of(state)) for queue in (self.queues.one, self.queues.other) for state in JobState
        }

    def losing(self, most_preemptions: int = 2, most_kills: int = 0) -> Iterator[tuple[tuple[int, ...], str | None]]:
        """Of each schedule its choices, and what is wrong after it, if anything is."""
        todo: list[tuple[int, ...]] = [()]
        with intercepted(self.system):
            while todo:
                run, wrong = self._run(todo.pop())
                yield tuple(decision.taken for decision in run.decisions), wrong
                todo += further(run, most_preemptions, most_kills)

    def _run(self, choices: Sequence[int]) -> tuple[Run, str | None]:
        """Under one schedule, with the first choices given."""
        DEAD.clear()
        DEAD.add(GONE)
        contents = self._set_up()
        processes = [
            Process(
                number,
                lambda operation=operation: operation.act(self.queues),
                None if operation.removes is None else self.queues.one.folder / operation.removes,
            )
            for number, operation in enumerate(self.operations)
        ]
        run = Run(processes, choices)
        run.go()
        DEAD.update(1000 + process.number for process in processes if process.is_killed)
        return run, self._wrong_answers(processes) or self._after_a_look(processes, contents)

    def _set_up(self) -> set[bytes]:
        """The files that are there before."""
        wipe(self.system.root)
        contents = set()
        needed = sorted({place for operation in self.operations for place in operation.needs})
        for number, place in enumerate(needed):
            path = self.queues.one.folder / place
            match place:
                case "running/LIVING":
                    path = self.queues.claim().path
                case "running/GONE":
                    path = self.queues.claim(GONE).path
            content = f'{{"from": "{place}"}}'.encode()
            path.write_bytes(content)
            os.utime(path, ns=(0, 10**18 + number))
            contents.add(content)
        return contents

    def _wrong_answers(self, processes: Sequence[Process]) -> str | None:
        for operation, process in zip(self.operations, processes, strict=True):
            if process.error is not None and not isinstance(process.error, UserError | Killed):
                return f"{operation.name} raised {process.error!r}"
        return None

    def _after_a_look(self, processes: Sequence[Process], contents: set[bytes]) -> str | None:
        """What is wrong when another process has looked."""
        try:
            if any(process.is_killed for process in processes):
                self.queues.one.remove_half_written()
                self.queues.other.remove_half_written()
            self.queues.look()
        except Exception as error:
            return f"the look raised {error!r}"
        entries = list(walk(self.system.root))
        found = Counter(self._contents(entries))
        may_be_gone: set[bytes] = set()
        expected = set(contents)
        for operation, process in zip(self.operations, processes, strict=True):
            may_be_gone |= process.seen
            if operation.adds is not None and process.error is None:
                expected.add(operation.adds)
            elif operation.adds is not None and isinstance(process.error, Killed):
                may_be_gone.add(operation.adds)
        for content in expected - may_be_gone:
            if found[content] == 0:
                return f"lost: {content.decode()}"
        for content, number in found.items():
            if content == b"" and not self.system.has_links:
                continue  # a name that a process took that was killed, or was moved by another; a runner refuses it
            if content not in expected | may_be_gone:
                return f"nobody's: {content.decode()!r}"
            if number > 1:
                return f"{number} times: {content.decode()}"
        for operation, process in zip(self.operations, processes, strict=True):
            if operation.name.startswith("rm") and process.error is None and all(found[c] for c in process.seen):
                return f"{operation.name} has removed nothing and reports nothing"
        left = [entry.name for entry in entries if entry.name[0] == "." or "-to-" in entry.name]
        return f"left over: {left}" if left else None

    def _contents(self, entries: Sequence["os.DirEntry[str]"]) -> Iterator[bytes]:
        """Of all job files, hidden ones too: nothing hidden is left."""
        for entry in entries:
            folder, _, name = os.path.dirname(entry.path).rpartition("/")  # noqa: PTH120 - thousands of times
            is_on_its_way = name.startswith(".") and name.endswith(".placing")
            if entry.name.endswith(".json") and (folder if is_on_its_way else f"{folder}/{name}") in self._states:
                yield Path(entry.path).read_bytes()
