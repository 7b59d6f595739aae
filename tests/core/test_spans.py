"""Names for what takes time."""

import threading
from contextlib import contextmanager, suppress

import pytest

from accel_trainer.core.spans import Phase, recording, span, spanned, timed


class Heard:
    def __init__(self) -> None:
        self.words: list[str] = []

    @contextmanager
    def span(self, name, count=1):
        self.words.append(f"<{name}")
        try:
            yield
        finally:
            self.words.append(f"{name}>")


def test_where_nobody_listens_a_span_is_nothing():
    assert span(Phase.STEP) is span(Phase.FORWARD)
    with span(Phase.STEP), span(Phase.STEP):
        pass
    heard = Heard()
    with recording(heard):
        pass
    with span(Phase.STEP):
        pass
    assert heard.words == []


def test_spans_are_heard_from_all_threads_also_when_they_end_in_an_error():
    @spanned(Phase.LOADING)
    def load(number):
        return 1 / number

    heard = Heard()
    with recording(heard):
        thread = threading.Thread(target=load, args=(2,))
        thread.start()
        thread.join()
        with suppress(ZeroDivisionError):
            load(0)
    assert heard.words == ["<loading", "loading>"] * 2
    assert load(4) == 0.25
    assert load.__name__ == "load"


def test_timed_measures_the_wait_for_items_and_not_their_use():
    heard = Heard()

    def items():
        for number in range(2):
            heard.words.append(f"make {number}")
            yield number

    with recording(heard):
        for number in timed(items()):
            heard.words.append(f"use {number}")
    wait = "waiting for images"
    once = [[f"<{wait}", f"make {number}", f"{wait}>", f"use {number}"] for number in range(2)]
    assert heard.words == [*once[0], *once[1], f"<{wait}", f"{wait}>"]


def test_what_is_no_longer_waited_for_is_closed():
    closed = []

    def items():
        try:
            yield from range(10)
        finally:
            closed.append(True)

    def take() -> None:
        for number in timed(items()):
            if number == 3:
                raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        take()
    assert closed == [True]
