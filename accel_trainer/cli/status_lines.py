"""What `status --watch` shows, as lines: nothing here looks, waits or prints."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from accel_trainer.cli.app import count_of
from accel_trainer.cli.colors import BOLD, FAINT, REVERSED, colored, state_painter
from accel_trainer.cli.status_cells import COLUMNS, row_texts
from accel_trainer.cli.tables import cut, table, text_width
from accel_trainer.core.text import duration, one_line
from accel_trainer.queue.status_table import JobStatus
from accel_trainer.queue.time_left import TimeLeft

# The keys that show one state alone.
STATES = {"r": "running", "p": "pending", "h": "held", "f": "failed", "c": "canceled", "d": "done"}
HELP = (
    "arrows, PgUp, PgDn: scroll  /: filter  r p h f c d: one state  a: all  q: quit",
    "/: filter  r p h f c d a: states  q: quit",
    "q: quit",
)
# From so many columns on, a table says where a job runs and since when.
WIDE = 110
ONLY_WIDE, DROPPED_FIRST = ("where", "elapsed"), ("where", "elapsed", "best", "left", "epoch")
SHORTEST_NOTE, SHORT_NOTE = 12, 40


@dataclass(frozen=True)
class Board:
    """What is known of a queue. notes: lines that belong to no job; trouble: why it could not be looked at just now."""

    folder: str
    rows: Sequence[JobStatus]
    left: TimeLeft
    notes: Sequence[str] = ()
    trouble: str | None = None


@dataclass(frozen=True)
class View:
    """What a person has chosen to see. state: one alone, 'all' for a list of all, None for an overview; words: what a
    row has to have; top: the row that is shown first."""

    state: str | None = None
    words: str = ""
    is_typing: bool = False
    top: int = 0

    def after(self, key: str, page: int) -> "View":
        """What is seen after a key was pressed. page: how many rows fit."""
        if self.is_typing:
            return self._typed(key)
        match key:
            case "up" | "down" | "page up" | "page down" | "home" | "end":
                steps = {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -(10**9), "end": 10**9}
                return replace(self, state=self.state or "all", top=max(0, self.top + steps[key]))
            case "/":
                return replace(self, is_typing=True, top=0)
            case "escape":
                return View()
            case "a":
                return replace(self, state="all", top=0)
            case _ if key in STATES:
                return replace(self, state=STATES[key], top=0)
            case _:
                return self

    def _typed(self, key: str) -> "View":
        match key:
            case "enter":
                return replace(self, is_typing=False)
            case "escape":
                return replace(self, is_typing=False, words="")
            case "backspace":
                return replace(self, words=self.words[:-1])
            case "clear":
                return replace(self, words="")
            case _ if len(key) == 1:
                return replace(self, words=self.words + key)
            case _:
                return self


def page_size(board: Board, size: tuple[int, int]) -> int:
    """How many rows of jobs fit on a screen."""
    return max(1, size[1] - len(_head(board, size[0])) - 2)


def frame(board: Board, view: View, size: tuple[int, int], *, colors: bool) -> tuple[list[str], View]:
    """The lines of a screen of this size, in columns and lines; and the view, which is not below its last row."""
    width, height = size[0] - 1, size[1]  # a terminal may wrap a line that is as wide as itself
    head, rows_fit = _head(board, size[0]), page_size(board, size)
    found = _chosen(board.rows, view)
    if view.state is None and not view.words:
        rows, rest = _overview(found, rows_fit)
        view = replace(view, top=0)
    else:
        top = min(view.top, max(0, len(found) - rows_fit))
        view, rows = replace(view, top=top), found[top : top + rows_fit]
        rest = None
    lines = [colored(head[0], BOLD, wanted=colors), *head[1:]]
    lines += _table(rows, width, wide=width >= WIDE, colors=colors) if rows else [cut(_nothing(board, view), width)]
    if rest is not None:
        lines.append(colored(cut(rest, width), FAINT, wanted=colors))
    lines = [*lines[: height - 1], *[""] * (height - 1 - len(lines))]
    foot = cut(_foot(view, len(found), len(rows), width), width)
    return [*lines, colored(foot, REVERSED, wanted=colors)], view


def _head(board: Board, width: int) -> list[str]:
    """How many jobs are in which state, what is left, and what else is to be known."""
    counts = Counter(row.state for row in board.rows)
    of_states = ", ".join(f"{counts[state]:,} {state}" for state in STATES.values() if counts[state])
    of_jobs = f"{count_of(len(board.rows), 'job')}: {of_states}" if of_states else "no jobs"
    lines = [f"{of_jobs}  ({board.folder})", time_left_line(board.left)]
    if board.trouble is not None:
        lines.append(f"cannot be looked at: {board.trouble}; what follows is from before")
    notes = list(board.notes)
    lines += notes if len(notes) <= 2 else [notes[0], f"and {len(notes) - 1} more notes: see `accel-train status`"]
    return [cut(one_line(line), width - 1) for line in lines]


def time_left_line(left: TimeLeft) -> str:
    """How long the queue still takes, in words."""
    if not left.num_jobs:
        return "nothing is left to do"
    if left.seconds is None:
        return "time left: - (no run like these has finished an epoch yet)"
    unknown = f"; {left.num_unknown:,} more unknown" if left.num_unknown else ""
    jobs = f"{count_of(left.num_jobs - left.num_unknown, 'job')}, {left.places:,} at once"
    return f"about {duration(left.seconds)} left: {jobs}, at the pace of like runs{unknown}"


def _chosen(rows: Sequence[JobStatus], view: View) -> list[JobStatus]:
    words = view.words.lower().split()
    return [row for row in rows if view.state in (None, "all", row.state) and all(word in _text(row) for word in words)]


def _text(row: JobStatus) -> str:
    return " ".join(map(str, filter(None, (row.job, row.state, row.host, row.note)))).lower()


def _overview(rows: Sequence[JobStatus], fit: int) -> tuple[list[JobStatus], str | None]:
    """What runs, what is next and what has failed, as many as fit; and a line on the rest."""
    if len(rows) <= fit:
        return list(rows), None
    fit = max(1, fit - 1)
    of = {state: [row for row in rows if row.state == state] for state in ("running", "pending", "failed")}
    share = {"running": fit - fit // 4 * 2, "failed": fit // 4, "pending": fit // 4}
    shown = {state: min(len(of[state]), share[state]) for state in of}
    for state in ("running", "failed", "pending"):  # what others do not need
        shown[state] = min(len(of[state]), shown[state] + fit - sum(shown.values()))
    seen = [row for state in of for row in of[state][: shown[state]]]
    left = Counter(row.state for row in rows)
    left.subtract(shown)
    more = ", ".join(f"{left[state]:,} {state}" for state in STATES.values() if left[state] > 0)
    return seen, f"and {more}"


def _table(rows: Sequence[JobStatus], width: int, *, wide: bool, colors: bool) -> list[str]:
    """A header and a line for each row. Columns for which there is no room are left out."""
    cells = [_cells(row, width) for row in rows]
    columns = [name for name in COLUMNS if name != "note" and (wide or name not in ONLY_WIDE)]
    while (taken := _width_of(columns, cells)) > width and len(columns) > 2:
        columns.remove(next(name for name in DROPPED_FIRST if name in columns))
    if (room := width - taken - 2) >= SHORTEST_NOTE:
        columns.append("note")
        cells = [row | {"note": None if (note := row["note"]) is None else cut(note, room)} for row in cells]

    paint = state_painter(wanted=colors)
    head, *lines = table(columns, [[row[name] for name in columns] for row in cells], paint=paint).split("\n")
    if room < SHORT_NOTE:
        lines = _with_long_notes(lines, [_cells(row, width) for row in rows], width, paint)
    return [colored(head, FAINT, wanted=colors), *lines]


def _with_long_notes(
    lines: Sequence[str], cells: Sequence[Mapping[str, str | None]], width: int, paint: Callable[[str, str], str]
) -> list[str]:
    """The lines of a table; where a note says more than numbers do, it has the room of the other columns too."""
    columns = ("job", "state", "note")
    room = width - _width_of(columns[:2], cells) - 2
    texts = [[row["job"], row["state"], cut(_told(row), room)] for row in cells]
    longer = table(columns, texts, paint=paint).split("\n")[1:]
    is_told = [row["note"] is not None and row["left"] is None for row in cells]
    return [long if told else line for line, long, told in zip(lines, longer, is_told, strict=True)]


def _told(row: Mapping[str, str | None]) -> str:
    """A note, with how far the job came."""
    numbers = [f"{name} {row[name]}" for name in ("epoch", "best") if row[name] is not None]
    return " ".join([row["note"] or "", *([f"({', '.join(numbers)})"] if numbers else [])])


def _width_of(columns: Sequence[str], cells: Sequence[Mapping[str, str | None]]) -> int:
    return max(map(text_width, table(columns, [[row[name] for name in columns] for row in cells]).split("\n")))


def _cells(row: JobStatus, width: int) -> dict[str, str | None]:
    texts = [None if text is None else one_line(text) for text in row_texts(row)]
    cells = dict(zip(COLUMNS, texts, strict=True))
    most = {"job": max(8, width // 3), "where": max(8, width // 5)}
    return cells | {name: cut(text, most[name]) for name in most if (text := cells[name]) is not None}


def _nothing(board: Board, view: View) -> str:
    if not board.rows:
        return "no jobs"
    state = "" if view.state in (None, "all") else f" that is {view.state}"
    words = f" with {view.words!r}" if view.words else ""
    return f"no job{state}{words}"


def _foot(view: View, num_found: int, num_shown: int, width: int) -> str:
    """The line of help; before it what is seen, unless that is the overview."""
    if view.is_typing:
        return f"/{view.words}_   Enter: keep this filter  Esc: none"
    seen = ""
    if view.state is not None or view.words:
        words = f" with {view.words!r}" if view.words else ""
        state = view.state or "all"
        seen = f"{state}{words} {view.top + bool(num_shown)}-{view.top + num_shown} of {num_found:,}  Esc: overview  "
    return next((f"{seen}{words}" for words in HELP if len(seen) + len(words) <= width), f"{seen}{HELP[-1]}")
