"""The table of trials: a row for each image, condition and observer, and each cycle and layer of a model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from accel_trainer.core.errors import UserError
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.measures.factor import Factor, groups, place_of


@dataclass(frozen=True)
class Cell:
    """Whose trials, and under which conditions: what a figure is of.

    layer is "" and cycle None where the table has none; conditions: ((column, level), ...).
    """

    observer: str = ""
    layer: str = ""
    cycle: int | None = None
    conditions: tuple[tuple[str, str], ...] = ()

    @property
    def who(self) -> "Cell":
        """The observer (a model's layer and cycle), without the conditions."""
        return replace(self, conditions=())

    @property
    def levels(self) -> dict[str, str]:
        """The conditions by column."""
        return dict(self.conditions)

    def under(self, **conditions: str) -> "Cell":
        """This cell with further conditions."""
        return replace(self, conditions=(*self.conditions, *conditions.items()))


def in_table_order(cell: Cell) -> tuple[Any, ...]:
    """The key that sorts cells: observer, layer, cycle, then levels; numbers by their size."""
    levels = [(name, place_of(level)) for name, level in cell.conditions]
    return place_of(cell.observer), cell.layer, -1 if cell.cycle is None else cell.cycle, *levels


@dataclass(frozen=True)
class Trials:
    """n trials.

    image: what was shown, by a name that all observers know it by. true_class, response: names of classes; a response
    may be no class ("na", no answer). correct: (n,) bool. observer: the model or the person.
    conditions: columns such as benchmark, degradation, level. layer: of readouts. cycle: (n,) int32, of recurrent
    models.
    classes: the classes in the order of a model's outputs; () for people.
    probabilities: (n, k) float32, of all classes in their order, or of those whose places top_classes, (n, k) int32,
    has.
    entropy: (n,) float32, of all probabilities, in nats. seconds: (n,) float64, a person's reaction time, NaN for none.
    """

    image: Factor
    true_class: Factor
    response: Factor
    correct: NDArray[np.bool_]
    observer: Factor
    conditions: Mapping[str, Factor] = field(default_factory=dict)
    layer: Factor | None = None
    cycle: NDArray[np.int32] | None = None
    classes: tuple[str, ...] = ()
    probabilities: NDArray[np.float32] | None = None
    top_classes: NDArray[np.int32] | None = None
    entropy: NDArray[np.float32] | None = None
    seconds: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Raises UserError for columns that do not fit each other."""
        lengths = {name: len(column) for name, column in self._columns()}
        if len(set(lengths.values())) > 1:
            raise UserError(f"columns of trials have different lengths: {lengths}")
        if taken := sorted(self.conditions.keys() & COLUMNS):
            raise UserError(f"no condition may be called {listed(taken)}: that is another column of a table of trials")
        self._check_probabilities()

    def _check_probabilities(self) -> None:
        values, places = self.probabilities, self.top_classes
        if values is None:
            if places is not None:
                raise UserError("top_classes without probabilities")
            return
        if values.ndim != 2 or not self.classes:
            raise UserError("probabilities are a row of numbers for each trial, and need the names of the classes")
        if places is None and values.shape[1] != len(self.classes):
            raise UserError(f"{values.shape[1]} probabilities for {len(self.classes)} classes")
        if places is not None and places.shape != values.shape:
            raise UserError(f"probabilities are {values.shape}, their classes {places.shape}")

    @classmethod
    def of(
        cls,
        image: Iterable[Any],
        true_class: Iterable[Any],
        response: Iterable[Any],
        *,
        observer: Any = "",
        conditions: Mapping[str, Any] | None = None,
        correct: Iterable[Any] | None = None,
        layer: Any = None,
        cycle: Any = None,
        **others: Any,
    ) -> Self:
        """Trials of plain sequences; one value for observer, layer, cycle or a condition is that of all rows.

        correct is by default where response and true class are the same text. others: further columns, as arrays.
        """
        images, truth, answers = Factor.of(image), Factor.of(true_class), Factor.of(response)
        length = len(images)
        if not length == len(truth) == len(answers):
            raise UserError(
                f"{length} images, {len(truth)} true classes, {len(answers)} responses: one each is a trial"
            )
        right = truth.equals(answers) if correct is None else np.asarray(list(correct), bool)
        return cls(
            images,
            truth,
            answers,
            right,
            _column(observer, length),
            {name: _column(values, length) for name, values in (conditions or {}).items()},
            layer=None if layer is None else _column(layer, length),
            cycle=None if cycle is None else np.broadcast_to(np.asarray(cycle, np.int32), (length,)),
            **others,
        )

    @staticmethod
    def joined(parts: "Iterable[Trials]") -> "Trials":
        """Tables below each other, with the columns that all have, and all conditions: where a table has not got one,
        its level is "". Raises UserError for none, and for other classes."""
        parts = list(parts)
        if not parts:
            raise UserError("no trials")
        if len(parts) == 1:
            return parts[0]
        probabilities = [part.probabilities for part in parts]
        if all(values is not None for values in probabilities) and len({part.classes for part in parts}) > 1:
            raise UserError("probabilities of other classes do not make one table")
        names = dict.fromkeys(name for part in parts for name in part.conditions)
        conditions = {
            name: Factor.joined([part.conditions.get(name, Factor.constant("", len(part))) for part in parts])
            for name in names
        }
        columns = {name: _joined([getattr(part, name) for part in parts]) for name in COLUMNS}
        if columns["probabilities"] is None:
            columns["top_classes"] = None
        classes = parts[0].classes if len({part.classes for part in parts}) == 1 else ()
        return Trials(conditions=conditions, classes=classes, **columns)

    def __len__(self) -> int:
        return len(self.correct)

    def select(self, rows: NDArray[Any]) -> Self:
        """These rows: indices, or a mask."""
        columns = {name: _selected(getattr(self, name), rows) for name in COLUMNS}
        conditions = {name: column.select(rows) for name, column in self.conditions.items()}
        return replace(self, conditions=conditions, **columns)

    def without_probabilities(self) -> Self:
        """The columns that take little memory."""
        return replace(self, probabilities=None, top_classes=None)

    def pooled(self, name: str = "group") -> Self:
        """All observers as one of this name."""
        return replace(self, observer=Factor.constant(name, len(self)))

    def condition(self, name: str) -> Factor:
        """A column of conditions, or the true class. Raises UserError with the nearest name."""
        if name == "true_class":
            return self.true_class
        if name not in self.conditions:
            known = listed(self.conditions) or "none"
            raise UserError(
                f"trials have no condition {name!r}{did_you_mean(name, self.conditions)}", hint=f"there are: {known}"
            )
        return self.conditions[name]

    def cells(self, by: Sequence[str] | None = None) -> Iterator[tuple[Cell, NDArray[np.intp]]]:
        """Each observer (layer, cycle) under each combination of levels that there is, with the indices of its rows.

        by: columns of conditions; None: all of them.
        """
        group, found = self.grouped(by)
        order = np.argsort(group, kind="stable")
        ends = np.searchsorted(group[order], np.arange(len(found) + 1))
        for place, cell in enumerate(found):
            yield cell, order[ends[place] : ends[place + 1]]

    def grouped(self, by: Sequence[str] | None = None) -> tuple[NDArray[np.int64], list[Cell]]:
        """As `cells`: ((n,) int64 place of each row's cell, the cells, `in_table_order`)."""
        by = list(self.conditions) if by is None else list(by)
        length = len(self)
        layer = self.layer or Factor.constant("", length)
        cycle = Factor.constant("", length) if self.cycle is None else _numbered(self.cycle)
        of_row, values = groups([self.observer, layer, cycle, *map(self.condition, by)], length)
        cells = [
            Cell(observer, layer_name, int(number) if number else None, tuple(zip(by, levels, strict=True)))
            for observer, layer_name, number, *levels in values
        ]
        order = sorted(range(len(cells)), key=lambda place: in_table_order(cells[place]))
        places = np.empty(len(cells), np.int64)
        places[order] = np.arange(len(cells))
        return places[of_row], [cells[place] for place in order]

    def _columns(self) -> Iterator[tuple[str, Any]]:
        for name in COLUMNS:
            if (column := getattr(self, name)) is not None:
                yield name, column
        yield from self.conditions.items()


# All columns but the conditions.
COLUMNS = frozenset(column.name for column in fields(Trials)) - {"conditions", "classes"}

# A table, or its parts one after the other: what need not be in memory at once.
Blocks = Trials | Iterable[Trials]


def blocks_of(trials: Blocks) -> Iterable[Trials]:
    """The parts of a table."""
    return [trials] if isinstance(trials, Trials) else trials


def whole(trials: Blocks) -> Trials:
    """A table in memory, without its probabilities."""
    return Trials.joined(block.without_probabilities() for block in blocks_of(trials))


def _column(values: Any, length: int) -> Factor:
    match values:
        case Factor():
            return values
        case str() | int() | float():
            return Factor.constant(values, length)
        case _:
            return Factor.of(values)


def _numbered(numbers: NDArray[np.int32]) -> Factor:
    """A column of numbers; its levels are in their order."""
    found, codes = np.unique(numbers, return_inverse=True)
    return Factor(codes.reshape(-1).astype(np.int32), tuple(map(str, found.tolist())))


def _selected(column: Any, rows: NDArray[Any]) -> Any:
    match column:
        case None:
            return None
        case Factor():
            return column.select(rows)
        case _:
            return column[rows]


def _joined(columns: Sequence[Any]) -> Any:
    if any(column is None for column in columns):
        return None
    return Factor.joined(columns) if isinstance(columns[0], Factor) else np.concatenate(columns)
