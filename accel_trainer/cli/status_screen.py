"""`status --watch` at a terminal: a screen that is kept up to date, scrolled and filtered by keys."""

import sys
import threading
import time

from accel_trainer.cli.colors import has_colors
from accel_trainer.cli.console import output_error
from accel_trainer.cli.full_screen import FullScreen, full_screen, screen_size
from accel_trainer.cli.keys import Keys
from accel_trainer.cli.status_lines import Board, View, frame, page_size
from accel_trainer.cli.status_notes import notes_of
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import one_line
from accel_trainer.queue.status_book import StatusBook
from accel_trainer.queue.store import QueueStore
from accel_trainer.queue.time_left import TimeLeft, TimeLeftEstimator

LOOK_EVERY_S = 2.0
# So often at least a screen is drawn anew; keys are answered at once, and the size of the terminal is obeyed.
DRAW_EVERY_S = 0.2
# A look that takes long, as at a slow disk, is made so much less often.
PAUSE_PER_LOOK = 10


def watch_status(queue: QueueStore) -> None:
    """Show the jobs of a queue until somebody presses q. Ctrl-C and SIGTERM end it too; the terminal is as before."""
    keys, lookout = Keys(sys.stdin.fileno()), Lookout(queue)
    lookout.start()
    with full_screen(keys) as screen:
        _run(screen, keys, lookout)


def _run(screen: FullScreen, keys: Keys, lookout: "Lookout") -> None:
    view, colors = View(), has_colors()
    while output_error() is None:
        size, board = screen_size(), lookout.board
        if board is None:
            screen.draw([f"{one_line(lookout.folder)}: reading the jobs ..."[: size[0] - 1]])
        else:
            lines, view = frame(board, view, size, colors=colors)
            screen.draw(lines)
        for key in keys.wait(DRAW_EVERY_S):
            if key == "q" and not view.is_typing:
                return
            view = view.after(key, 1 if board is None else page_size(board, size))


class Lookout(threading.Thread):
    """Looks at a queue again and again, apart from who shows it: a disk that is slow keeps no key waiting.

    board: what was seen last; None before the first look.
    """

    def __init__(self, queue: QueueStore) -> None:
        super().__init__(name="look at the queue", daemon=True)
        self.folder, self.board = str(queue.folder), None
        self._queue, self._book, self._time_left = queue, StatusBook(queue), TimeLeftEstimator(queue)

    board: Board | None

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            began = time.monotonic()
            self.look()
            time.sleep(max(LOOK_EVERY_S, PAUSE_PER_LOOK * (time.monotonic() - began)))

    def look(self) -> None:
        """Look once."""
        try:
            entries = self._book.look()
            rows = [entry.row for entry in entries]
            notes = notes_of(self._queue, self._book.damaged)
            self.board = Board(self.folder, rows, self._time_left.estimate(entries), notes)
        except (UserError, OSError) as error:
            before = self.board or Board(self.folder, (), TimeLeft(None, 0, 0, 1))
            self.board = Board(before.folder, before.rows, before.left, before.notes, one_line(error))
