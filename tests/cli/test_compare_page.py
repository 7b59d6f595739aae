"""`accel-train compare --html`: what is written, when it is written again, and what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import write_job
from report.page.synthetic_runs import make_runs, write_people
from typer.testing import CliRunner, Result

from accel_trainer.cli import app, compare_page
from accel_trainer.core.errors import UserError
from accel_trainer.queue.layout import QueueUnusable
from accel_trainer.queue.store import QueueStore


def compare(*words: str) -> Result:
    result = CliRunner().invoke(app, ["compare", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def problem(*words: str) -> str:
    error = CliRunner().invoke(app, ["compare", *words]).exception
    assert isinstance(error, UserError)
    (line,) = error.problems
    return line


def data(path: str = "report.html") -> dict[str, Any]:
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', Path(path).read_text())
    content: dict[str, Any] = json.loads(found)
    return content


@pytest.fixture(autouse=True)
def runs(own_environment: Path) -> None:
    make_runs(Path("models"), 12, 3, evaluated=1)


def test_the_page_has_the_runs_that_the_table_would_have() -> None:
    options = ["models", "--where", "architecture=vgg11", "--sort", "-best", "--metric", "acc5,loss"]
    result = compare(*options, "--html", "report.html")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"report\.html: 4 runs, 0\.\d MB\n", result.stdout)
    page, rows = data(), json.loads(compare(*options, "--json").stdout)
    assert [run["label"] for run in page["runs"]] == [row["job"] for row in rows]
    assert page["metric_values"] == [[row["values"][name] for row in rows] for name in ("acc5", "loss")]
    assert (page["queue"], page["again_s"], page["tests"]) == (None, None, None)


def test_groups_tests_people_and_problems_are_on_it() -> None:
    write_people(Path("people.csv"))
    Path("broken").mkdir()
    Path("broken/config.json").write_text("{")
    groups = ["--group-by", "architecture", "--against", "vgg11"]
    result = compare("models", "broken", "--html", "report.html", *groups, "--human", "people.csv")
    assert result.exit_code == 2
    assert "broken/config.json" in result.stderr
    page = data()
    assert page["grouping"] == "architecture"
    assert [row[0] for row in page["tests"][1]] == ["convnext_tiny", "resnet18"] * 3
    assert [line["name"] for line in page["panels"][1]["lines"] if line["run"] is None] == ["people"]
    assert any("broken/config.json" in note for note in page["notes"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--watch"], "`watch`: is of a page; give `html` too"),
        (["--queue", "q"], "`queue`: is of a page; give `html` too"),
        (["--html", "p.html", "--json"], "`json`: prints, and `html` writes a page"),
        (["--html", "p.html", "--diff"], "`diff`: prints, and `html` writes a page"),
        (["--html", "none/p.html"], "none/p.html: cannot be written: No such file or directory"),
        (["--html", "p.html", "--human", "none.csv"], "none.csv: cannot be read: No such file or directory"),
        (["--html", "p.html", "--group-by", "lrr"], "`group_by`: no run has 'lrr'; did you mean 'lr'?"),
    ],
)
def test_mistakes_are_one_line_and_no_page(words: list[str], line: str) -> None:
    assert line in problem("models", *words)
    assert not list(Path().glob("**/p.html"))


def test_a_queue_that_is_not_there_is_said() -> None:
    error = CliRunner().invoke(app, ["compare", "models", "--html", "p.html", "--watch"]).exception
    assert isinstance(error, QueueUnusable)


@pytest.fixture
def queue() -> QueueStore:
    store = QueueStore(Path("training_queue"))
    store.create()
    write_job(store.folder / "waits.json")
    write_job(store.folder / "done" / "is-over.json")
    return store


def looks(monkeypatch: pytest.MonkeyPatch, *between: Callable[[], Any]) -> list[dict[str, Any]]:
    """The page as it is between the looks of --watch, in which these happen."""
    pages, left = list[dict[str, Any]](), list(between)

    def sleep(seconds: float) -> None:
        assert seconds >= compare_page.LOOK_EVERY_S
        pages.append(data())
        left.pop(0)()

    monkeypatch.setattr(compare_page.time, "sleep", sleep)
    return pages


def test_a_page_is_written_until_the_queue_is_done(queue: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("models").rename("others")
    waits, done = queue.folder / "waits.json", queue.folder / "done" / "waits.json"
    pages = looks(monkeypatch, lambda: Path("others").rename("models"), lambda: waits.rename(done))
    result = compare("models", "--html", "report.html", "--watch", "--sort", "best")
    assert result.exit_code == 0
    first, second = pages
    assert (first["runs"], first["again_s"]) == ([], compare_page.LOOK_EVERY_S)
    assert first["queue"]["counts"] == {"pending": 1, "done": 1}
    assert [job["job"] for job in first["queue"]["jobs"]] == ["waits"]
    assert any("is not a run folder" in note for note in first["notes"])
    assert len(second["runs"]) == 12
    last = data()
    assert (last["again_s"], last["queue"]["counts"], len(last["runs"])) == (None, {"done": 2}, 12)


def test_ctrl_c_ends_the_watch_and_the_page_reads_itself_no_more(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    pages = looks(monkeypatch, interrupt)
    result = CliRunner().invoke(
        app, ["compare", "models", "--html", "report.html", "--watch", "--queue", "training_queue"]
    )
    assert result.exit_code != 0
    assert pages[0]["again_s"] is not None
    assert data()["again_s"] is None


def test_a_name_that_nothing_has_is_said_at_the_end_of_the_watch(
    queue: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (queue.folder / "waits.json").rename(queue.folder / "done" / "waits.json")
    assert "no run has 'lrr'" in problem("models", "--html", "report.html", "--watch", "--group-by", "lrr")
