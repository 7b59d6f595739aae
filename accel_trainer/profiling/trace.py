"""A Chrome trace: what torch's profiler has seen of a process, and what the loader's threads did meanwhile."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accel_trainer.core.files import write_atomic
from accel_trainer.profiling.recorder import Span


def add_threads(path: Path, spans: Iterable[Span]) -> None:
    """Put spans of other threads into a trace that torch has written, which hears of one thread only."""
    trace = json.loads(path.read_text())
    base = trace.get("baseTimeNanoseconds", 0)
    numbers: dict[int, int] = {}
    for span in spans:
        numbers.setdefault(span.thread, len(numbers) + 1)
        trace["traceEvents"].append(_event(span, base))
    trace["traceEvents"] += [_name(thread, number) for thread, number in numbers.items()]
    write_atomic(path, json.dumps(trace), durable=False)


def _event(span: Span, base: int) -> dict[str, Any]:
    """A complete event (X); times in microseconds."""
    times = {"ts": (span.start - base) / 1000, "dur": (span.end - span.start) / 1000}
    return {"ph": "X", "cat": "user_annotation", "name": span.name, "pid": os.getpid(), "tid": span.thread, **times}


def _name(thread: int, number: int) -> dict[str, Any]:
    about = {"ph": "M", "name": "thread_name", "pid": os.getpid(), "tid": thread}
    return {**about, "ts": 0, "args": {"name": f"loader thread {number}"}}
