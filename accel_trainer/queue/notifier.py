"""Tells a person who is away what becomes of a queue: by a command, a URL, or a service that apprise knows.

Nothing of it delays or fails a job: a thread of its own does it, one notice after the other, each with a time limit.
"""

import json
import os
import queue as queues
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from accel_trainer.core.child_environment import helper_environment
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import first_line, one_line
from accel_trainer.queue.events import Emit, Event, NotificationFailed, WaitingForJobs
from accel_trainer.queue.notices import Notice, notice_of

# For one notice at one target; and, when the queue is over, for all that are still to be told.
LIMIT_S = 30.0
# More that wait are left out: the target takes none.
MOST_WAITING = 1000
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)


class CannotTell(Exception):
    """A target has not taken a notice; says why."""


class Target(Protocol):
    """Where notices go. `name` has nothing secret in it."""

    @property
    def name(self) -> str:
        """What it is called in a warning."""
        ...

    def tell(self, notice: Notice) -> None:
        """Hand a notice over. Raises CannotTell."""
        ...


@dataclass(frozen=True)
class Command:
    """A program: it gets the facts as JSON on standard input, and in variables of its environment."""

    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """The program, without its arguments."""
        return self.words[0]

    def tell(self, notice: Notice) -> None:
        """Run it, for LIMIT_S at most; then it is killed, with all that it has started. Raises CannotTell."""
        told = {"EVENT": notice.event, "JOB": notice.job, "REASON": notice.reason, "LOG": notice.log}
        told |= {"QUEUE": notice.queue, "TEXT": notice.text}
        variables = {f"ACCEL_TRAIN_{name}": value or "" for name, value in told.items()}
        try:
            process = subprocess.Popen(
                self.words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=helper_environment() | variables,
                start_new_session=True,
            )
        except OSError as error:
            raise CannotTell(error.strerror or str(error)) from error
        try:
            _, said = process.communicate(json.dumps(notice.facts).encode(), timeout=LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise CannotTell(f"has not ended in {LIMIT_S:.0f} seconds") from error
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise CannotTell(f"exit code {process.returncode}{f': {one_line(last)}' if last else ''}")


@dataclass(frozen=True)
class Webhook:
    """An http(s) URL: the facts are posted to it as JSON."""

    url: str

    @property
    def name(self) -> str:
        """Scheme and host: a path or a query may be a secret."""
        return _shown(self.url)

    def tell(self, notice: Notice) -> None:
        """Post it. Raises CannotTell."""
        import urllib.error
        import urllib.request

        headers = {"Content-Type": "application/json", "User-Agent": "accel-train"}
        request = urllib.request.Request(self.url, json.dumps(notice.facts).encode(), headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S / 2):
                pass
        except urllib.error.HTTPError as error:
            with error:
                raise CannotTell(f"answers {error.code} {one_line(error.reason)}") from error
        except (OSError, ValueError) as error:
            raise CannotTell(first_line(error)) from error


@dataclass(frozen=True)
class Service:
    """What apprise knows, such as slack://, mailto:// or ntfy://."""

    url: str

    @property
    def name(self) -> str:
        """The scheme: anything else may be a secret."""
        return f"{self.url.partition('://')[0]}://..."

    def tell(self, notice: Notice) -> None:
        """Send it. Raises CannotTell."""
        import apprise

        service = apprise.Apprise()
        service.add(self.url)
        if not service.notify(title="accel-train", body=notice.text):
            raise CannotTell("apprise could not send it")


def target_of(words: str) -> Target:
    """What is meant by `--notify`. Raises UserError for what could tell nobody anything."""
    url = _URL.fullmatch(words.strip())
    if url is None:
        return _command(words)
    if url["scheme"].lower() in ("http", "https"):
        if not re.match(r"[^/?#\s]+", url["rest"]):
            raise UserError(f"{words!r} names no host", option="notify")
        return Webhook(words.strip())
    if find_spec("apprise") is None:
        raise UserError(
            f"{url['scheme']}:// needs apprise, which is not installed",
            option="notify",
            hint="pip install 'accel-train[notify]'",
        )
    import apprise

    if not apprise.Apprise().add(words.strip()):
        raise UserError(f"apprise does not know what {_shown(words)} is", option="notify")
    return Service(words.strip())


def _command(words: str) -> Command:
    try:
        command = tuple(shlex.split(words))
    except ValueError as error:
        raise UserError(f"{words!r}: {error}", option="notify") from error
    if not command or shutil.which(command[0]) is None:
        raise UserError(
            f"{command[0] if command else words!r} is no program that can be run, and no URL", option="notify"
        )
    return Command(command)


def _shown(url: str) -> str:
    scheme, _, rest = url.strip().partition("://")
    return f"{scheme}://{re.split(r'[/?#]', rest.rpartition('@')[2])[0]}"


class Notifier:
    """Takes the events of a queue, and has what a person is to know told to some targets, aside."""

    def __init__(self, targets: Sequence[Target], queue: Path, emit: Emit) -> None:
        """emit: is given each event as well; and, from another thread, that a target has taken a notice no more."""
        self._targets, self._queue, self._emit = targets, str(queue.absolute()), emit
        self._waiting: queues.Queue[Notice] = queues.Queue(MOST_WAITING)
        self._failing: set[str] = set()
        self._has_news = False
        if targets:
            threading.Thread(target=self._run, name="notify", daemon=True).start()

    def __call__(self, event: Event) -> None:
        """Note an event; never waits."""
        self._emit(event)
        if (notice := notice_of(event, self._queue)) is not None:
            self._has_news = True
            self._put(notice)
        elif isinstance(event, WaitingForJobs) and self._has_news:
            self.tell_empty(0)

    def tell_empty(self, num_left: int) -> None:
        """Nothing more can be run; num_left: jobs that wait for others, have no room here, or are kept by a pause."""
        self._has_news = False
        jobs = "1 job is" if num_left == 1 else f"{num_left:,} jobs are"
        self._put(Notice("empty", self._queue, reason=f"{jobs} left that cannot run" if num_left else None))

    def close(self) -> None:
        """Wait until all is told, for LIMIT_S at most."""
        until = time.monotonic() + LIMIT_S
        while self._targets and self._waiting.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.02)

    def _put(self, notice: Notice) -> None:
        if self._targets:
            with suppress(queues.Full):
                self._waiting.put_nowait(notice)

    def _run(self) -> None:
        while True:
            notice = self._waiting.get()
            for target in self._targets:
                self._tell(target, notice)
            self._waiting.task_done()

    def _tell(self, target: Target, notice: Notice) -> None:
        try:
            target.tell(notice)
        except Exception as error:  # whatever a service's library does is no reason to end a queue
            if target.name not in self._failing:
                self._failing.add(target.name)
                self._emit(NotificationFailed(target.name, one_line(first_line(error))))
        else:
            self._failing.discard(target.name)
