"""Spans with their times."""

import json
import threading

import pytest
import torch

from accel_trainer.core.spans import Phase, recording, span
from accel_trainer.profiling.recorder import Span, SpanRecorder, add_loader_threads, exclusive_seconds

CPU = torch.device("cpu")


def made(name: Phase, start: float, end: float, parent: Span | None = None) -> Span:
    return Span(name, 1, parent, round(start * 1e9), round(end * 1e9))


def test_a_phase_has_the_time_that_its_inner_phases_leave():
    step = made(Phase.STEP, 0, 10)
    forward = made(Phase.FORWARD, 1, 5, step)
    spans = [
        made(Phase.METRICS, 4, 5, forward),
        forward,
        made(Phase.BACKWARD, 5, 8, step),
        made(Phase.METRICS, 8, 8.5, step),
        step,
        made(Phase.WAITING, 10, 12),
    ]
    expected = {"step": 2.5, "forward": 3, "metrics": 1.5, "backward": 3, "waiting for images": 2}
    assert exclusive_seconds(spans) == pytest.approx(expected)
    assert sum(exclusive_seconds(spans).values()) == pytest.approx(12)
    # What began before the spans that are looked at is of no account.
    assert exclusive_seconds(spans[2:4]) == pytest.approx({"backward": 3, "metrics": 0.5})


def test_warm_up_steps_and_other_threads_are_left_out_of_spans():
    recorder = SpanRecorder(CPU)

    def load() -> None:
        with span(Phase.LOADING), span(Phase.READING):
            pass

    with recording(recorder):
        for _ in range(3):
            with span(Phase.WAITING):
                load()
            with span(Phase.STEP), span(Phase.FORWARD):
                thread = threading.Thread(target=load)
                thread.start()
                thread.join()
    own = recorder.main_thread_spans(Phase.STEP, skip=1)
    assert [one.name for one in own] == ["waiting for images", "forward", "step"] * 2
    assert own[1].parent is own[2]
    assert all(one.end >= one.start for one in own)
    assert len(recorder.main_thread_spans(Phase.STEP, skip=0)) == 9
    loaded = recorder.loader_spans(since=own[0].start)
    assert [one.name for one in loaded] == ["reading and decoding", "loading"] * 4
    assert len(recorder.loader_spans(since=0)) == 12
    # All of it, where nothing was begun since: a small number of steps has its images loaded before.
    assert len(recorder.loader_spans(since=2**62)) == 12


def test_other_threads_come_into_a_trace_where_torch_has_put_the_main_one(tmp_path):
    path = tmp_path / "trace.json"
    here = {"ph": "X", "name": "step", "ts": 5.0, "dur": 1.0}
    path.write_text(json.dumps({"baseTimeNanoseconds": 2000, "traceEvents": [here]}))
    add_loader_threads(path, [Span(Phase.LOADING, 7, None, 5000, 9000), Span(Phase.READING, 8, None, 5500, 6000)])
    kept, loading, reading, *names = json.loads(path.read_text())["traceEvents"]
    assert kept == here
    assert (loading["name"], loading["ts"], loading["dur"], loading["tid"]) == ("loading", 3.0, 4.0, 7)
    assert (reading["name"], reading["ts"], reading["dur"], reading["tid"]) == ("reading and decoding", 3.5, 0.5, 8)
    assert [(name["tid"], name["args"]["name"]) for name in names] == [(7, "loader thread 1"), (8, "loader thread 2")]
