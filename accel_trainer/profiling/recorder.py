"""Spans with their times: by the host's clock, and on a CUDA device by its events."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from accel_trainer.core.files import write_atomic
from accel_trainer.core.spans import Phase

# Without threads, these phases are part of the process's waiting for images.
LOADER_PHASES = (Phase.LOADING, Phase.READING, Phase.RENDERING)


@dataclass(eq=False)
class Span:
    """A phase of one thread, of `count` things. start, end: nanoseconds since 1970; device_events: CUDA events at start
    and end."""

    name: Phase
    thread: int
    parent: "Span | None"
    start: int
    end: int = 0
    device_events: tuple[Any, Any] | None = None
    count: int = 1

    def seconds(self) -> float:
        """Its length: on the device if that was recorded, which must have reached the end; else on the host."""
        if self.device_events is not None:
            return float(self.device_events[0].elapsed_time(self.device_events[1])) / 1000
        return (self.end - self.start) / 1e9


class SpanRecorder:
    """Records the spans of all threads, in the order of their ends; a `SpanSink`.

    On a CUDA device, spans of the creating thread are timed on the device, including its waits for the host; this was
    not run on one. annotate: gives the context that names a span of that thread to torch's profiler.
    """

    def __init__(self, device: torch.device, annotate: Callable[[str], AbstractContextManager[Any]] = nullcontext):
        self.spans: list[Span] = []
        self.thread = threading.get_native_id()
        self._is_marked, self._annotate = device.type == "cuda", annotate
        self._open = threading.local()

    @contextmanager
    def span(self, name: Phase, count: int = 1) -> Iterator[None]:
        """Record the body of the context as a span of this thread."""
        parent, thread = getattr(self._open, "span", None), threading.get_native_id()
        is_own = thread == self.thread
        marks = (_device_event(), _device_event()) if is_own and self._is_marked else None
        span = Span(name, thread, parent, time.time_ns(), device_events=marks, count=count)
        self._open.span = span
        if marks is not None:
            marks[0].record()
        try:
            with self._annotate(name) if is_own else nullcontext():
                yield
        finally:
            if marks is not None:
                marks[1].record()
            span.end = time.time_ns()
            self._open.span = parent
            self.spans.append(span)

    def main_thread_spans(self, after: Phase, skip: int) -> list[Span]:
        """The spans of the recording thread that ended after the `skip`-th end of an outermost span `after`."""
        spans = [span for span in self.spans if span.thread == self.thread and span.name not in LOADER_PHASES]
        ends = [number for number, span in enumerate(spans) if span.name is after and span.parent is None]
        cut = ends[:skip][-1:]  # the last of them; a process may have no image to validate
        return spans[cut[0] + 1 :] if cut else spans

    def loader_spans(self, since: int) -> list[Span]:
        """The loader's spans, of any thread, that began at `since` (ns) or later; all of them if none did. What is in
        one that has not ended is left out with it."""
        ended = {span for span in self.spans if span.name in LOADER_PHASES}
        spans = [span for span in self.spans if _outermost(span) in ended]
        return [span for span in spans if _outermost(span).start >= since] or spans


def _outermost(span: Span) -> Span:
    """The outermost of the loader's spans that contain this one."""
    while span.parent is not None and span.parent.name in LOADER_PHASES:
        span = span.parent
    return span


def _device_event() -> Any:
    return torch.cuda.Event(enable_timing=True)


def exclusive_seconds(spans: Sequence[Span]) -> dict[Phase, float]:
    """Seconds of each phase, without the spans inside it that are among these."""
    seconds: dict[Phase, float] = {}
    known = set(spans)
    for span in spans:
        length = span.seconds()
        seconds[span.name] = seconds.get(span.name, 0.0) + length
        if span.parent in known:
            seconds[span.parent.name] = seconds.get(span.parent.name, 0.0) - length
    return seconds


def add_loader_threads(path: Path, spans: Iterable[Span]) -> None:
    """Add spans of the loader's threads, and of the one that saves, to a Chrome trace of torch's profiler, which has
    those of one thread only."""
    trace = json.loads(path.read_text())
    base = trace.get("baseTimeNanoseconds", 0)
    names: dict[int, str] = {}
    for span in spans:
        names.setdefault(span.thread, "saving" if span.name is Phase.SAVING else f"loader thread {len(names) + 1}")
        trace["traceEvents"].append(_event(span, base))
    trace["traceEvents"] += [_name(thread, name) for thread, name in names.items()]
    write_atomic(path, json.dumps(trace), durable=False)


def _event(span: Span, base: int) -> dict[str, Any]:
    """A complete event (X); times in microseconds."""
    times = {"ts": (span.start - base) / 1000, "dur": (span.end - span.start) / 1000}
    return {"ph": "X", "cat": "user_annotation", "name": span.name, "pid": os.getpid(), "tid": span.thread, **times}


def _name(thread: int, name: str) -> dict[str, Any]:
    about = {"ph": "M", "name": "thread_name", "pid": os.getpid(), "tid": thread}
    return {**about, "ts": 0, "args": {"name": name}}
