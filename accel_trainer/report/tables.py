"""What `accel-train compare` prints, as headers and rows: of runs, of groups of them, of what differs, of tests."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from accel_trainer.core.text import duration, format_value, listed, shortest_suffixes
from accel_trainer.report.columns import Column
from accel_trainer.report.compare import Comparison, differing_parameters
from accel_trainer.report.groups import Difference, Group, estimate, missing_values, other_differences

OWN_FIELDS = ("architecture", "num_epochs")
FINISHED = "finished"


@dataclass(frozen=True)
class Table:
    """header, rows: for people, or for programs with whole names and all digits. records: the same as JSON has it."""

    header: list[str]
    rows: list[list[Any]]
    records: list[dict[str, Any]]
    of_loss: frozenset[str] = frozenset()
    """The columns that have small numbers."""

    @property
    def decimals(self) -> list[int]:
        """How many digits after the point the numbers of each column are shown with."""
        return [4 if name in self.of_loss else 2 for name in self.header]


def table_of_runs(runs: Sequence[Comparison], keys: Sequence[str], *, is_for_people: bool) -> Table:
    """A row for each run, which has the parameters `keys` as its settings."""
    metrics = list(runs[0].values) if runs else []
    any_corrupt = any(run.corrupt for run in runs)
    header = ["job", "architecture", *_names(keys, is_for_people), "parameters", "state", "epochs"]
    degradations = [] if metrics else list(dict.fromkeys(name for run in runs for name in run.degraded))
    header += metrics or ["metric", "best", "in epoch", *degradations]
    header += ["images/s", "time", *["corrupt"] * any_corrupt]
    rows = [
        [run.job, run.architecture, *(_setting(run.settings[key]) for key in keys), run.parameters, run.state,
         None if run.num_epochs is None else f"{run.epochs}/{run.num_epochs}",
         *(run.values.values() if metrics else (run.metric, run.best, run.best_epoch)),
         *map(run.degraded.get, degradations), run.images_per_s,
         duration(run.seconds) if is_for_people else run.seconds, *[run.corrupt] * any_corrupt]
        for run in runs
    ]  # fmt: skip
    return Table(header, rows, [asdict(run) for run in runs], frozenset(filter(_is_loss, metrics)))


def table_of_differences(runs: Sequence[Comparison]) -> Table:
    """A row for each parameter that differs, a column for each run."""
    own = [name for name in OWN_FIELDS if len({getattr(run, name) for run in runs}) > 1]
    values = {key: [getattr(run, key) for run in runs] for key in own}
    values |= {key: [run.settings.get(key) for run in runs] for key in differing_parameters(runs)}
    rows = [[key, *map(_setting, line)] for key, line in values.items()]
    records = [
        {"job": run.job, "differs": {key: line[place] for key, line in values.items()}}
        for place, run in enumerate(runs)
    ]
    return Table(["parameter", *(run.job for run in runs)], rows, records)


def table_of_groups(groups: Sequence[Group], columns: Sequence[Column], *, is_for_people: bool) -> Table:
    """A row for each group; n, mean, sd, and the 95% interval of the mean for each metric."""
    header, of_loss = _names(list(groups[0].levels) if groups else [], is_for_people), set[str]()
    for column in columns:
        prefix = "" if len(columns) == 1 else f"{column.name} "
        mean = column.name if len(columns) == 1 and is_for_people else f"{prefix}mean"
        names = [f"{prefix}n", mean, f"{prefix}sd", f"{prefix}low", f"{prefix}high"]
        header += names
        of_loss |= set(names) if _is_loss(column.name) else set()
    rows, records = [], []
    for group in groups:
        found = {column.name: estimate(group.values(column)) for column in columns}
        rows.append(
            [
                *map(_setting, group.levels.values()),
                *(value for one in found.values() for value in (one.n, one.mean, one.sd, one.low, one.high)),
            ]
        )
        metrics = {name: asdict(one) for name, one in found.items()}
        records.append({"group": dict(group.levels), "jobs": [run.job for run in group.runs], "metrics": metrics})
    return Table(header, rows, records, frozenset(of_loss))


def table_of_tests(tests: Sequence[tuple[Column, Difference]], *, is_for_people: bool) -> Table:
    """A row for each difference of two groups in a metric."""
    header = ["group", "against", "metric", "difference", "low", "high", "p", "test"]
    rows = [
        [one.group.name, one.other.name, column.name, one.difference, one.low, one.high,
         _p_value(one.p) if is_for_people else one.p, one.test]
        for column, one in tests
    ]  # fmt: skip
    records = [
        {**dict(zip(header, row, strict=True)), "p": one.p, "group": dict(one.group.levels),
         "against": dict(one.other.levels)}
        for row, (_, one) in zip(rows, tests, strict=True)
    ]  # fmt: skip
    is_small = any(_is_loss(column.name) for column, _ in tests)
    return Table(header, rows, records, frozenset(["difference", "low", "high"] if is_small else []))


def doubts_of_groups(groups: Sequence[Group], columns: Sequence[Column]) -> Iterator[str]:
    """What the means of groups hide: a line each."""
    for group in groups:
        if others := other_differences(group):
            yield f"{group.name}: its runs differ in {listed(others)}, not only in the seed"
        metrics = sorted({run.metric for run in group.runs if run.metric is not None})
        if len(metrics) > 1 and any(column.name == "best" for column in columns):
            yield f"{group.name}: best is of {listed(metrics)}; name one with `metric`"
    if unfinished := [run.job for group in groups for run in group.runs if run.state != FINISHED]:
        yield f"not finished: {listed(unfinished, 5)}; `where` state={FINISHED} leaves them out"
    for column in columns:
        if missing := missing_values(groups, column):
            yield f"without {column.name}, and left out: {listed(missing, 5)}"


def _names(keys: Sequence[str], is_for_people: bool) -> list[str]:
    return list(shortest_suffixes(keys).values()) if is_for_people else list(keys)


def _is_loss(metric: str) -> bool:
    return metric.rpartition("/")[2] == "loss"


def _setting(value: Any) -> Any:
    return None if value is None else format_value(value)


def _p_value(p: float | None) -> str | None:
    if p is None:
        return None
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"
