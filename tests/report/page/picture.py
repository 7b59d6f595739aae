"""The picture of the page in the docs: `PYTHONPATH=tests python -m report.page.picture FILE`."""

import sys
import tempfile
from pathlib import Path

from chromium import Chromium, find_chromium
from report.page.synthetic_runs import make_runs, write_people

from accel_trainer.report.compare import compare
from accel_trainer.report.page.document import as_html
from accel_trainer.report.page.gather import Wishes, gather
from accel_trainer.report.page.people import read_people

WIDTH, HEIGHT = 1280, 1640


def draw(browser: Chromium, folder: Path, path: Path, *, number: int = 48, epochs: int = 60) -> Path:
    """A picture of replicates of six recipes beside people. folder: for the runs."""
    runs = [
        run
        for run in compare(make_runs(folder / "models", number, epochs, evaluated=number))
        if run.settings["optimizer_args.lr"] == 0.05
    ]
    people = read_people(write_people(folder / "people.csv"))
    contents = gather(runs, Wishes(group_by=["all-but-seed"], people=[people]))
    (folder / "report.html").write_text(as_html(contents, f"Comparison of {len(runs)} runs", "0.2.0"))
    browser.look(WIDTH, HEIGHT)
    browser.open(folder / "report.html")
    browser.evaluate("scrollTo(0, 0)")
    browser.settle()
    box = browser.evaluate("document.querySelector('.u-over').getBoundingClientRect().toJSON()")
    browser.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.2)
    browser.settle()
    return browser.picture(path, kind="webp")


if __name__ == "__main__":
    program = find_chromium()
    if program is None:
        sys.exit("needs Chromium")
    with tempfile.TemporaryDirectory() as place, Chromium(program) as started:
        print(draw(started, Path(place), Path(sys.argv[1])))
