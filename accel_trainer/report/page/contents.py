"""What the page holds: plain data, which its script reads as JSON."""

from dataclasses import dataclass

from accel_trainer.report.page.confusions import PageConfusion
from accel_trainer.report.page.curves import Split
from accel_trainer.report.page.degradations import Panel
from accel_trainer.report.page.differences import Difference
from accel_trainer.report.page.groupings import Grouping
from accel_trainer.report.page.sheets import Sheet
from accel_trainer.report.page.table import PageTable


@dataclass(frozen=True)
class QueueJob:
    """A row of `accel-train status`, as texts. progress: 0..1, of what runs."""

    job: str
    state: str
    epoch: str | None
    best: str | None
    where: str | None
    left: str | None
    note: str | None
    progress: float | None


@dataclass(frozen=True)
class QueueState:
    """A queue at a moment. counts: jobs by state; jobs: those that run, and others that need a look."""

    folder: str
    counts: dict[str, int]
    jobs: list[QueueJob]


@dataclass(frozen=True)
class PageRun:
    """label: the job's name, and the folder's where several have that. link: to the folder, from the page."""

    label: str
    link: str
    splits: dict[str, Split]


@dataclass(frozen=True)
class PageContents:
    """All of it. metrics: titles of what groups have estimates of, with decimals; metric_values: of each, that of every
    run. grouping: the name of the one that is shown at first, or nothing. quantiles: of Student's t. tests: header and
    rows of the differences to a group, if one was named. series: curves by their names; first_series: those that are
    shown at first."""

    written: float
    runs: list[PageRun]
    table: PageTable
    metrics: list[tuple[str, int]]
    metric_values: list[list[float | None]]
    groupings: list[Grouping]
    grouping: str
    quantiles: list[float]
    tests: tuple[list[str], list[list[str]]] | None
    series: list[str]
    first_series: list[str]
    differences: list[Difference]
    panels: list[Panel]
    confusions: list[PageConfusion]
    sheets: list[Sheet]
    notes: list[str]
    queue: QueueState | None = None
    again_s: float | None = None
    """The file is written again after so many seconds, and the page reads it then; None: it stays."""
