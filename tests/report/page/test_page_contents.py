"""What the page holds: the numbers of `compare`, curves, people, sheets, small enough."""

import json
from pathlib import Path

import pytest
from PIL import Image
from report.page.synthetic_runs import make_runs, write_people

from accel_trainer.core.errors import UserError
from accel_trainer.report.columns import find_column
from accel_trainer.report.compare import Comparison, compare
from accel_trainer.report.documents import shown_cells
from accel_trainer.report.groups import estimate, grouped
from accel_trainer.report.page.curves import MOST_POINTS, names_of_series, splits_of
from accel_trainer.report.page.differences import what_differs
from accel_trainer.report.page.document import as_html
from accel_trainer.report.page.gather import Wishes, gather
from accel_trainer.report.page.people import read_people
from accel_trainer.report.tables import table_of_runs
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Comparison]:
    """24 of 12 recipes; two are evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    return compare(make_runs(folder, 24, 6, evaluated=2, sheets=24))


def test_the_table_has_the_cells_of_the_terminal(runs: list[Comparison]) -> None:
    contents = gather(runs, Wishes(columns="seed,lr"))
    theirs = table_of_runs(
        [*_with(runs, ["seed", "optimizer_args.lr"])], ["seed", "optimizer_args.lr"], is_for_people=True
    )
    assert [column.title for column in contents.table.columns] == theirs.header
    place = theirs.header.index("parameters")
    for cells, row in zip(contents.table.cells, theirs.rows, strict=True):
        expected = shown_cells(row, theirs.decimals, "")
        assert cells[:place] + cells[place + 1 :] == expected[:place] + expected[place + 1 :]
        assert cells[place] == f"{row[place]:,}"


def _with(runs: list[Comparison], keys: list[str]) -> list[Comparison]:
    from accel_trainer.report.compare import select_parameters

    return select_parameters(keys, runs)


def test_groups_have_the_estimates_of_the_terminal(runs: list[Comparison]) -> None:
    asked = compare([RunFolder(Path(run.folder)) for run in runs], ["acc5", "loss"])
    contents = gather(asked, Wishes(group_by=["architecture", "seed"], metrics=["acc5", "loss"]))
    assert contents.grouping == contents.groupings[0].name == "architecture,seed"
    groups = grouped(asked, ["architecture", "seed"])
    for page_group, group in zip(contents.groupings[0].groups, groups, strict=True):
        assert [contents.runs[place].label for place in page_group.runs] == [run.job for run in group.runs]
        for name, numbers in zip(("acc5", "loss"), page_group.estimates, strict=True):
            own = estimate(group.values(find_column(name, asked, "metric")))
            assert numbers == (own.n, own.mean, own.sd, own.low, own.high)


def test_replicates_are_named_by_what_tells_them_apart(runs: list[Comparison]) -> None:
    contents = gather(runs, Wishes())
    (replicates,) = [one for one in contents.groupings if one.name == "all-but-seed"]
    assert replicates.columns == ["architecture", "lr", "Occlusion"]
    names = [group.name for group in replicates.groups]
    assert {"resnet18, lr 0.05", "resnet18, lr 0.05, Occlusion"} <= set(names)
    assert len(set(names)) == 12
    assert sorted(one.title for one in what_differs(runs)) == ["Occlusion", "architecture", "lr", "seed"]


def test_a_run_of_many_epochs_has_as_many_points_as_can_be_seen() -> None:
    rows = [PerformanceRow(epoch, "val", {"loss": 1 / epoch}, 0.1, 9.0, 2.0) for epoch in range(1, 3001)]
    rows[5:6] = [PerformanceRow(6, "val", {"loss": float("nan")}, 0.1, 9.0, 2.0)]
    (split,) = splits_of(rows).values()
    assert len(split.epochs) <= MOST_POINTS + 1
    assert (split.epochs[0], split.epochs[-1], split.seconds[-1]) == (1, 3000, 6000.0)
    short = splits_of(rows[:8])["val"]
    assert short.scores["loss"][4:7] == [0.2, None, 0.14286]
    assert names_of_series([splits_of([PerformanceRow(1, "train", {"loss": 1.0}, 0.1, 9.0, 2.0), rows[0]])]) == [
        "loss",
        "train/loss",
        "train/lr",
    ]


def test_people_are_beside_the_runs_at_the_same_levels(runs: list[Comparison], tmp_path: Path) -> None:
    people = read_people(write_people(tmp_path / "people.csv"))
    panels = {panel.name: panel for panel in gather(runs, Wishes(people=[people])).panels}
    assert list(panels) == ["noise/gaussian", "occlusion/mudSplash"]
    assert [line.run for line in panels["noise/gaussian"].lines] == [0, 1]
    occlusion = panels["occlusion/mudSplash"]
    line = occlusion.lines[-1]
    assert (line.name, line.run, line.n) == ("people", None, [4] * 6)
    assert [occlusion.levels[place] for place in line.places] == ["0.1", "0.2", "0.4", "0.6", "0.8", "1"]
    # What the table of runs has is the mean over the curve.
    own = occlusion.lines[0]
    assert sum(value or 0 for value in own.accuracies) / 6 == pytest.approx(
        runs[0].degraded["occlusion/mudSplash"], rel=1e-4
    )
    assert all(low <= value <= high for low, value, high in zip(own.lows, own.accuracies, own.highs, strict=True))


def test_one_person_has_the_interval_of_the_trials_and_other_tables_are_refused(tmp_path: Path) -> None:
    (first, *_) = read_people(write_people(tmp_path / "one.csv", ["p1"])).levels
    assert (first.people, first.low < first.accuracy < first.high or first.high == 1.0) == (1, True)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no published table of trials"):
        read_people(tmp_path / "other.csv")


def test_confusions_are_of_each_degradation(runs: list[Comparison]) -> None:
    found = gather(runs, Wishes()).confusions
    assert [(one.run, one.degradation) for one in found] == [
        (run, name) for run in (0, 1) for name in ("noise/gaussian", "occlusion/mudSplash")
    ]
    assert sum(map(sum, found[0].counts)) == 160 * 6


def test_sheets_are_small_and_one_for_each_recipe(runs: list[Comparison], tmp_path: Path) -> None:
    sheets = gather(runs, Wishes()).sheets
    assert sorted(place for sheet in sheets for place in sheet.runs) == list(range(24))
    assert len(sheets) == 12
    assert all(len(sheet.source) < 80_000 for sheet in sheets)
    broken = RunFolder(tmp_path / "broken")
    broken.path.mkdir()
    for content in (b"no picture", b"\x89PNG\r\n\x1a\n"):
        broken.sample_inputs.write_bytes(content)
        from accel_trainer.report.page.sheets import sheets_of

        assert sheets_of([broken], [[0]]) == []
    Image.effect_noise((3000, 2000), 90).convert("RGB").save(broken.sample_inputs)
    (noise,) = sheets_of([broken], [[0]])
    assert len(noise.source) < 90_000


def test_links_go_from_the_page_to_the_runs(runs: list[Comparison]) -> None:
    folder = Path(runs[0].folder)
    (link,) = [run.link for run in gather(runs[:1], Wishes(beside=folder.parent.parent / "reports")).runs]
    assert link == f"./../{folder.parent.name}/{folder.name}/"


def test_a_page_of_50_runs_of_100_epochs_is_under_3_mb(tmp_path: Path) -> None:
    runs = compare(make_runs(tmp_path, 50, 100, sheets=50))
    assert len(as_html(gather(runs, Wishes()), "50 runs", "1.0").encode()) < 3_000_000


def test_a_page_of_nothing_is_a_page() -> None:
    contents = gather([], Wishes(), ["nothing is there yet"])
    assert json.dumps(contents.notes) in as_html(contents, "nothing", "1.0")
