import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest

from accel_trainer.data.shared_work import SingleTask, run_here, run_shared


class Squares:
    """The squares of numbers, a part for each."""

    def __init__(self, count: int, failing: int | None = None) -> None:
        self.made: list[int | None] = [None] * count
        self.failing, self.done = failing, 0

    def parts(self, number: int) -> Sequence[Callable[[], None]]:
        return [lambda i=i: self.square(i) for i in range(len(self.made))]  # type: ignore[misc]

    def square(self, i: int) -> None:
        if i == self.failing:
            raise ZeroDivisionError("of all things")
        self.made[i] = i * i
        self.done += 1

    def result(self) -> list[int | None]:
        return self.made


@pytest.fixture(params=[1, 3])
def pool(request: pytest.FixtureRequest) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(request.param) as pool:
        yield pool


@pytest.mark.parametrize("count", [0, 1, 50])
def test_all_parts_are_done_before_the_result_is_there(pool: ThreadPoolExecutor, count: int) -> None:
    for _ in range(20):
        expected = [i * i for i in range(count)]
        assert run_shared(pool, lambda: Squares(count), 3).result(timeout=60) == run_here(Squares(count)) == expected


def test_threads_are_asked_one_by_one_while_parts_are_left() -> None:
    class Counting(ThreadPoolExecutor):
        num_calls = 0

        def submit(self, *given: Any, **named: Any) -> Any:
            self.num_calls += 1
            return super().submit(*given, **named)

    with Counting(1) as pool:
        for count, num_calls in ((0, 1), (1, 2), (50, 3)):
            pool.num_calls = 0
            assert run_shared(pool, lambda count=count: Squares(count), 8).result(timeout=60) is not None  # type: ignore[misc]
            assert pool.num_calls == num_calls  # the beginning, a thread, and the one that it asked for


def test_as_many_threads_as_there_are_come_to_parts_that_last() -> None:
    together = threading.Barrier(4)

    class Waiting(Squares):
        def square(self, i: int) -> None:
            together.wait(timeout=60)
            super().square(i)

    with ThreadPoolExecutor(4) as pool:
        assert run_shared(pool, lambda: Waiting(8), 4).result(timeout=60) == [i * i for i in range(8)]


def test_an_error_of_a_part_is_that_of_the_whole_and_ends_it(pool: ThreadPoolExecutor) -> None:
    work = Squares(500, failing=3)
    with pytest.raises(ZeroDivisionError, match="of all things"):
        run_shared(pool, lambda: work, 3).result(timeout=60)
    assert work.done < 490


def test_an_error_in_a_first_or_last_part_fails_the_whole(pool: ThreadPoolExecutor) -> None:
    def fail() -> Squares:
        raise KeyError("begin")

    class Failing(Squares):
        def result(self) -> list[int | None]:
            raise KeyError("end")

    for begin, word in ((fail, "begin"), (lambda: Failing(4), "end")):
        with pytest.raises(KeyError, match=word):
            run_shared(pool, begin, 3).result(timeout=60)


def test_what_is_cancelled_is_not_begun() -> None:
    begun, free = [], threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(free.wait)
        future = run_shared(pool, lambda: begun.append(1) or Squares(3), 1)  # type: ignore[func-returns-value]
        assert future.cancel()
        free.set()
        with pytest.raises(CancelledError):
            future.result(timeout=60)
    assert not begun


def test_a_call_is_work_of_one_part(pool: ThreadPoolExecutor) -> None:
    assert run_shared(pool, lambda: SingleTask(lambda: "made"), 3).result(timeout=60) == "made"
