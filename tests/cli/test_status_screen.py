"""`status --watch`: what it shows, on terminals of several sizes, and what it leaves behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import COMMAND, write_job
from pty_screen import ALTERNATE, PtyScreen

from accel_trainer.cli.keys import named
from accel_trainer.cli.status_lines import Board, View, frame, page_size
from accel_trainer.queue.layout import JobState
from accel_trainer.queue.status_table import JobStatus
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.time_left import TimeLeft

SCREENS = Path(__file__).parent / "screens"


def rows() -> list[JobStatus]:
    """300 jobs in all states."""
    at = {"metric": "acc1", "num_epochs": 90}
    running = [
        JobStatus("resnet50-seed0", "running", 41, best=71.25, host="grey", devices=("0",), elapsed_s=15130,
                  left_s=18000.0, **at),
        JobStatus("vit_b_16-augmented", "running", 3, best=12.5, host="grey", devices=("1",), elapsed_s=950,
                  left_s=28800.0, corrupt_images=1, **at),
        JobStatus("resnet50-seed0-blur", "running", images=12_000, num_images=50_000, host="blue", elapsed_s=61,
                  kind="evaluation"),
        JobStatus("lost", "running", 7, note="its runner died; run-queue reclaims it", best=33.3, host="blue", **at),
    ]  # fmt: skip
    interrupted = JobStatus("resnet50-seed1", "pending", 3, num_epochs=8, best=55.5, metric="acc1",
                            note="continues at 3/8")  # fmt: skip
    waits = JobStatus("finetune", "pending", note="waits for 'resnet50-seed0', which is running")
    return [
        *running,
        interrupted,
        waits,
        *(JobStatus(f"resnet50-seed{number}", "pending") for number in range(2, 240)),
        *(JobStatus(f"kept{number}", "held") for number in range(3)),
        *(
            JobStatus(f"odd{number}", "failed", 1, note="the loss is not finite at step 17 (epoch 1)", **at)
            for number in range(6)
        ),
        JobStatus("typo", "failed", note="architecture: no architecture 'resnet5'; did you mean 'resnet50'?"),
        JobStatus("given-up", "canceled", note="canceled by somebody"),
        *(JobStatus(f"done{number}", "done", 90, best=70.0 + number / 10, **at) for number in range(45)),
    ]


BOARD = Board("training_queue", rows(), TimeLeft(1_234_567.0, 244, 3, 3), ["the queue on grey is paused since 11:50"])


def drawn(view: View, size: tuple[int, int], board: Board = BOARD, *, colors: bool = False) -> str:
    lines, _ = frame(board, view, size, colors=colors)
    assert len(lines) == size[1]
    assert colors or max(map(len, lines)) < size[0], "a terminal would wrap it"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("name", "view", "size"),
    [
        ("overview-80x24", View(), (80, 24)),
        ("overview-200x50", View(), (200, 50)),
        ("overview-40x12", View(), (40, 12)),
        ("failed-80x24", View(state="failed"), (80, 24)),
        ("filtered-80x24", View(words="seed1"), (80, 24)),
        ("typing-80x24", View(words="vit", is_typing=True), (80, 24)),
        ("scrolled-80x24", View(state="all", top=60), (80, 24)),
    ],
)
def test_a_screen_is_as_recorded(name: str, view: View, size: tuple[int, int]) -> None:
    recorded = SCREENS / f"status-{name}.txt"
    shown = "".join(f"{line.rstrip()}\n" for line in drawn(view, size).splitlines())
    if os.environ.get("RECORD_SCREENS"):
        recorded.write_text(shown)
    assert shown == recorded.read_text()


def test_all_of_300_jobs_are_counted_on_every_screen() -> None:
    assert len(BOARD.rows) == 300
    shown = drawn(View(), (80, 24))
    assert "300 jobs: 4 running, 240 pending, 3 held, 7 failed, 1 canceled, 45 done" in shown
    more = shown.splitlines()[-2]
    assert more.startswith("and ")
    listed = sum(line.split()[1:2] in (["running"], ["pending"], ["failed"]) for line in shown.splitlines())
    left = [int(part.split()[0]) for part in more.removeprefix("and ").split(", ")]
    assert sum(left) + listed == 300


def test_states_are_colored_and_the_words_say_it_too() -> None:
    shown = drawn(View(), (80, 24), colors=True)
    assert "\x1b[31mfailed " in shown
    assert "\x1b[36mrunning" in shown
    assert "\x1b[7m" in shown.splitlines()[-1]
    plain = drawn(View(), (80, 24))
    assert "\x1b" not in plain


def test_keys_scroll_filter_and_choose_a_state() -> None:
    def after(*keys: str) -> View:
        view = View()
        for key in keys:
            _, view = frame(BOARD, view.after(key, page_size(BOARD, (80, 24))), (80, 24), colors=False)
        return view

    assert after("down") == View(state="all", top=1)
    assert after("page down", "page down", "up") == View(state="all", top=2 * page_size(BOARD, (80, 24)) - 1)
    assert after("end").top == 300 - page_size(BOARD, (80, 24))
    assert after("end", "home").top == 0
    assert after("f") == View(state="failed")
    assert after("f", "escape") == View()
    assert after("/", *"seed17", "enter") == View(words="seed17")
    assert after("/", *"qf", "backspace") == View(words="q", is_typing=True)
    assert after("/", *"q", "escape") == View()
    assert "all with 'seed17' 1-11 of 11" in drawn(after("/", *"seed17", "enter"), (80, 24))
    assert "no job that is held with 'seed17'" in drawn(after("/", *"seed17", "enter", "h"), (80, 24))


@pytest.mark.parametrize(
    ("pressed", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        (b"\x1b[5~\x1b[6~x", ["page up", "page down", "x"]),
        (b"\x1b", ["escape"]),
        ("/ü\r".encode(), ["/", "ü", "enter"]),
        (b"a\x7f\x15", ["a", "backspace", "clear"]),
        (b"\x1b[200~\xff", []),
    ],
)
def test_keys_are_named(pressed: bytes, keys: list[str]) -> None:
    assert list(named(pressed)) == keys


def test_what_is_not_known_of_a_queue_is_a_dash_or_a_word() -> None:
    empty = Board("training_queue", (), TimeLeft(None, 0, 0, 1))
    assert drawn(View(), (80, 24), empty).splitlines()[:3] == [
        "no jobs  (training_queue)", "nothing is left to do", "no jobs",
    ]  # fmt: skip
    new = Board("training_queue", (JobStatus("a", "pending"),), TimeLeft(None, 1, 1, 1), trouble="disk away")
    shown = drawn(View(), (80, 24), new)
    assert shown.startswith(
        "1 job: 1 pending  (training_queue)\ntime left: - (no run like these has finished an epoch yet)\n"
    )
    assert "cannot be looked at: disk away" in shown
    assert "None" not in shown


@pytest.fixture
def watched(queue: QueueStore) -> Iterator[PtyScreen]:
    """A terminal that shows a queue with two pending jobs and one that has failed."""
    for name in ("first", "second"):
        write_job(queue.folder / f"{name}.json")
    write_job(queue.paths.of(JobState.FAILED) / "third.json")
    with PtyScreen([*COMMAND, "status", "--watch"]) as shown:
        shown.until("third")
        yield shown


def test_a_terminal_is_filled_answers_keys_obeys_its_size_and_is_as_before_at_the_end(watched: PtyScreen) -> None:
    assert watched.modes != watched.modes_before
    assert ALTERNATE in watched.screen.mode
    watched.press("f")
    watched.until(lambda text: "first" not in text and "third" in text)
    watched.press("\x1b")
    watched.until("first")
    watched.press("/sec\r")
    watched.until(lambda text: "first" not in text and "second" in text)
    watched.resize((60, 12))
    watched.until(lambda text: watched.lines[11].endswith("q: quit"))
    watched.press("q")
    assert watched.end() == 0
    assert watched.modes == watched.modes_before
    assert b"\x1b[2J" not in watched.raw, "to clear a screen before it is drawn makes it flicker"
    assert watched.raw.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_the_terminal_as_it_was(watched: PtyScreen, number: signal.Signals, code: int) -> None:
    os.kill(watched.process.pid, number)
    assert watched.end() == code
    assert watched.modes == watched.modes_before
    assert watched.raw.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")


def test_no_color_is_obeyed(queue: QueueStore) -> None:
    write_job(queue.paths.of(JobState.FAILED) / "third.json")
    with PtyScreen([*COMMAND, "status"], NO_COLOR="1") as plain, PtyScreen([*COMMAND, "status"]) as colored:
        assert (plain.end(), colored.end()) == (0, 0)
    assert b"\x1b[31m" in colored.raw
    assert b"\x1b[3" not in plain.raw
    assert plain.text == colored.text
