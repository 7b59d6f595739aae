"""A plugin of pytest: a test that hangs fails and says what hung; one that hangs even then ends its pytest, not the CI.

pytest-timeout interrupts a test in its main thread, once, and after a failure it times nothing any more: the end of a
fixture that waits for a process or a thread would hang on. So what the test has started is killed when it is
interrupted, and when that does not help, a thread of ours ends the process.
"""

import faulthandler
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest
from pytest_timeout import is_debugging

# After the interruption, before the process ends.
GRACE_S = 30.0
# Of the output of each process.
MOST_SHOWN = 4000
# Processes that other tests need too; what they have started for one test is not spared.
SPARED: set[int] = set()
_terminal = 2


@pytest.hookimpl
def pytest_configure() -> None:
    """What is printed now is not captured yet."""
    global _terminal
    _terminal = os.dup(2)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    limit_s = _limit_s(item)
    with _ended_after(limit_s + GRACE_S, item.nodeid) if limit_s else nullcontext():
        return (yield)


def _limit_s(item: pytest.Item) -> float:
    """As pytest-timeout takes it."""
    if marker := item.get_closest_marker("timeout"):
        return float(marker.args[0])
    given = item.config.getoption("timeout")
    return float(item.config.getini("timeout") if given is None else given)


@pytest.hookimpl
def pytest_timeout_set_timer(item: Any, settings: Any) -> bool:
    """In place of pytest-timeout's own: it interrupts a test too, and kills nothing."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if is_debugging():
            return
        left = _descendants(SPARED)
        said = _described(left, frame)
        _kill(left)
        pytest.fail(f"Timeout: it hangs, for more than {settings.timeout:g} s\n{said}")

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    return True


@contextmanager
def _ended_after(limit_s: float, name: str) -> Iterator[None]:
    """This process ends, with all that it has started, when something takes longer than the limit."""
    is_over = threading.Event()

    def watch() -> None:
        if is_over.wait(limit_s) or is_debugging():
            return
        left = _descendants(set())
        os.write(_terminal, f"\n{name} hangs, for more than {limit_s:g} s\n{_described(left)}\n".encode())
        faulthandler.dump_traceback(_terminal)
        _kill(left)
        os._exit(1)

    threading.Thread(target=watch, name="hang guard", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _descendants(spared: set[int]) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [child for child in psutil.Process().children(recursive=True) if child.pid not in spared]
    return []


def _described(processes: list[psutil.Process], frame: FrameType | None = None) -> str:
    """What each process is and does, and the end of its output as far as that can be reached."""
    read = _read_by(frame)
    parts = []
    for process in processes:
        with suppress(psutil.Error, OSError):
            times = process.cpu_times()
            spent = f"{times.user + times.system:.1f} s of CPU"
            words = " ".join(process.cmdline())
            head = f"process {process.pid} of {process.ppid()}, {process.status()}, {spent}: {words[:300]}"
            parts.append("\n".join([head, *_outputs(process.pid, read)]))
    return "\n".join(parts) or "it has started no process that still runs"


def _outputs(pid: int, read: dict[int, str]) -> Iterator[str]:
    targets: dict[str, str] = {}
    for number, name in ((1, "stdout"), (2, "stderr")):
        with suppress(OSError):
            targets.setdefault(str(Path(f"/proc/{pid}/fd/{number}").readlink()), name)
    for target, name in targets.items():
        text = read.get(pid, "") if name == "stdout" else ""
        if target.startswith("pipe:"):
            text += _waiting_in(target)
        elif Path(target).is_file():
            text = _end_of(Path(target))
        if text.strip():
            yield f"its {name}:\n{text[-MOST_SHOWN:]}"


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MOST_SHOWN))
        return file.read().decode(errors="replace")


def _waiting_in(pipe: str) -> str:
    """What was written to a pipe whose other end is ours, and not read yet. It is taken out of it."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(descriptor.readlink()) == pipe:
                end = os.open(descriptor, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    return os.read(end, 1 << 16).decode(errors="replace")
                finally:
                    os.close(end)
    return ""


def _read_by(frame: FrameType | None) -> dict[int, str]:
    """What `Popen.communicate` has read already, of the processes that the interrupted functions know."""
    found: dict[int, str] = {}
    while frame is not None:
        for value in frame.f_locals.values():
            if isinstance(value, subprocess.Popen):
                parts = (getattr(value, "_fileobj2output", None) or {}).values()
                found[value.pid] = b"".join(chunk for part in parts for chunk in part).decode(errors="replace")
        frame = frame.f_back
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
