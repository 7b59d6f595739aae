"""The page in Debian's Chromium: sorted, filtered, toggled, read by keyboard, without an error or a request."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, running_chromium
from PIL import Image
from report.page.picture import HEIGHT, WIDTH, draw
from report.page.synthetic_runs import make_runs, write_people

from accel_trainer.report.compare import compare
from accel_trainer.report.page.contents import QueueJob, QueueState
from accel_trainer.report.page.document import as_html
from accel_trainer.report.page.gather import Wishes, gather
from accel_trainer.report.page.people import read_people
from accel_trainer.run.folder import RunFolder

# Of what a frame takes, what is not the drawing of pixels.
OF_THE_PAGE = ("Script", "Layout", "RecalcStyle")
EVIL = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with running_chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 12 runs in 6 groups of replicates, two of them evaluated, beside people, with a queue."""
    folder = tmp_path_factory.mktemp("page")
    runs = compare(make_runs(folder / "models", 24, 10, evaluated=2, sheets=2), ["acc1"])
    runs = [run for run in runs if run.settings["optimizer_args.lr"] == 0.05]
    wishes = Wishes(metrics=["acc1"], people=[read_people(write_people(folder / "people.csv"))], beside=folder)
    job = QueueJob("job-9", "running", "3/10", "71 acc1", "here", "2m 00s", None, 0.3)
    queue = QueueState("training_queue", {"running": 1, "done": 12, "failed": 2}, [job])
    contents = gather(runs, wishes, [EVIL])
    (folder / "report.html").write_text(as_html(replace(contents, queue=queue), EVIL, "1.0"))
    return folder / "report.html"


@pytest.fixture
def shown(browser: Chromium, page: Path) -> Iterator[Chromium]:
    """The page as it is opened. At the end nothing was said on the console, and nothing asked for but the file."""
    browser.look(1280)
    browser.open(page)
    yield browser
    assert browser.said == []
    assert set(browser.asked) == {page.as_uri()}


def texts(browser: Chromium, selector: str) -> list[str]:
    found: list[str] = browser.evaluate(f"[...document.querySelectorAll({selector!r})].map(node => node.textContent)")
    return found


def column(browser: Chromium, number: int) -> list[str]:
    return texts(browser, f"#runs tbody tr > :nth-child({number})")


def labeled(browser: Chromium, name: str) -> str:
    """A selector of the button with a text."""
    browser.evaluate(
        f"[...document.querySelectorAll('button')].find(one => one.textContent.trim() === {name!r}).id = 'wanted'"
    )
    return "#wanted"


def test_a_heading_sorts_the_rows(shown: Chromium) -> None:
    titles = texts(shown, "#runs thead th button")
    place = next(number for number, title in enumerate(titles, 2) if title.startswith("acc1"))
    heading = f"#runs thead th:nth-child({place})"
    shown.click(f"{heading} button")
    values = [float(text) for text in column(shown, place)]
    assert values == sorted(values, reverse=True)
    assert shown.evaluate(f"document.querySelector('{heading}').ariaSort") == "descending"
    shown.press("Enter")  # the heading has the focus still
    assert [float(text) for text in column(shown, place)] == sorted(values)
    assert shown.evaluate(f"document.querySelector('{heading}').ariaSort") == "ascending"
    assert "sort=acc1" in shown.evaluate("location.hash")


def test_words_and_values_filter_runs_and_lines(shown: Chromium) -> None:
    shown.click("#filter")
    shown.type("resnet18 plain")
    assert texts(shown, "#runs .count") == ["2 of 12 runs"]
    assert all("resnet18-plain" in name for name in column(shown, 2))
    assert len(texts(shown, ".legend button")) == 2
    shown.click(labeled(shown, "show all"))
    shown.click("[aria-label^='Occlusion.occluder_dir occluder_dir occluders']")
    assert texts(shown, "#runs .count") == ["6 of 12 runs"]
    shown.open(Path(shown.evaluate("decodeURI(location.pathname)")), shown.evaluate("location.hash.slice(1)"))
    assert texts(shown, "#runs .count") == ["6 of 12 runs"]


def test_groups_have_the_numbers_of_the_terminal_also_as_the_script_computes_them(shown: Chromium) -> None:
    shown.evaluate("(() => { const s = document.getElementById('group'); s.value = 'all-but-seed';"
                   " s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    data: dict[str, Any] = shown.evaluate("JSON.parse(document.getElementById('data').textContent)")
    (way,) = [one for one in data["groupings"] if one["name"] == "all-but-seed"]
    assert texts(shown, "#runs .count") == ["6 groups of 12 runs"]
    place = 2 + len(way["columns"]) + 1
    assert column(shown, place) == [f"{group['estimates'][0][1]:.2f}" for group in way["groups"]]
    # What the script says of the same runs, where it computes anew since one of others is left out.
    shown.click("#filter")
    shown.type("-0")
    assert column(shown, place) == [f"{data['metric_values'][0][group['runs'][0]]:.2f}" for group in way["groups"]]


def test_a_legend_entry_hides_a_line(shown: Chromium) -> None:
    captions = "#curves figcaption"
    assert texts(shown, captions)[0].startswith("12 lines; ")
    shown.click(".legend li:first-child button")
    assert shown.evaluate("document.querySelector('.legend button').ariaPressed") == "false"
    assert texts(shown, captions)[0].startswith("11 lines; ")
    shown.click(labeled(shown, "hide all"))
    assert texts(shown, captions)[0] == "Nothing of it was measured."


def test_series_axes_and_scales_are_chosen(shown: Chromium) -> None:
    assert texts(shown, "#curves h3") == ["acc1", "train/acc1", "loss", "train/loss"]
    for name in ("train/loss", "log scale", "seconds", "train/lr"):
        shown.click(labeled(shown, name))
        shown.evaluate("document.getElementById('wanted').removeAttribute('id')")
    assert texts(shown, "#curves h3") == ["acc1", "train/acc1", "loss", "train/lr"]
    assert shown.evaluate("location.hash").startswith("#series=")
    assert {"log=true", "x=seconds"} <= set(shown.evaluate("location.hash").split("&"))


def test_the_pointer_names_the_nearest_line(shown: Chromium) -> None:
    shown.click(".legend li:first-child button")
    shown.click(".legend li:first-child button")
    box = shown.place_of(".u-over")
    for share in range(1, 20):
        shown.move(box["x"] + box["width"] - 3, box["y"] + box["height"] * share / 20)
        shown.settle()
        if tips := texts(shown, ".tip:not([hidden])"):
            break
    assert "epoch 10: " in tips[0]
    assert len(texts(shown, ".legend .near")) == 1


def test_the_keyboard_reads_a_plot(shown: Chromium) -> None:
    shown.evaluate("document.querySelector('#curves .plot').focus()")
    shown.press("ArrowRight")
    first = texts(shown, "#curves [role=status]")[0]
    assert "epoch 10: " in first
    shown.press("ArrowLeft")
    assert "epoch 9: " in texts(shown, "#curves [role=status]")[0]
    shown.press("ArrowDown")
    assert texts(shown, "#curves [role=status]")[0].split(": epoch")[0] != first.split(": epoch")[0]
    shown.press("Escape")
    assert texts(shown, ".tip:not([hidden])") == []


def test_runs_are_set_side_by_side(shown: Chromium) -> None:
    for row in (1, 7):
        shown.click(f"#runs tbody tr:nth-child({row}) input")
    rows = texts(shown, "#differences table tbody th")
    assert "architecture" in rows or "Occlusion" in rows
    assert texts(shown, "#differences mark")


def test_degradations_have_people_and_confusions_their_counts(shown: Chromium) -> None:
    assert texts(shown, "#degradations h3") == ["noise/gaussian", "occlusion/mudSplash"]
    shown.click("#degradations .chart:nth-child(2) summary")
    assert texts(shown, "#degradations table tbody th")[-1] == "people"
    counts = texts(shown, "#confusions tbody td")
    assert sum(int(text or 0) for text in counts) == 160 * 6
    assert texts(shown, "#sheets figcaption") == ["resnet18-plain-lr0.05-0 and 1 replicate"]


def test_names_of_others_are_texts_and_the_queue_is_shown(shown: Chromium) -> None:
    assert texts(shown, "h1") == [EVIL]
    assert texts(shown, "#runs li") == [EVIL]
    assert texts(shown, ".state dd") == ["1", "2", "12"]
    assert shown.evaluate("document.querySelector('progress').value") == 0.3
    assert shown.evaluate("document.querySelector('#runs tbody a').getAttribute('href')").startswith("./models/")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1920, "dark")])
def test_nothing_is_wider_than_the_window(shown: Chromium, width: int, scheme: str) -> None:
    shown.look(width, scheme=scheme, is_phone=width < 600)
    shown.settle()
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.evaluate(
        "[...document.querySelectorAll('.plot canvas')].every(c => c.getBoundingClientRect().width > 200)"
    )


def test_everything_has_a_name_for_who_does_not_see_it(shown: Chromium) -> None:
    nodes = shown.call("Accessibility.getFullAXTree")["nodes"]
    named = (
        "button",
        "link",
        "checkbox",
        "combobox",
        "slider",
        "searchbox",
        "image",
        "figure",
        "region",
        "progressbar",
    )
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in named and not node.get("ignored"):
            assert node.get("name", {}).get("value"), node


def test_paper_is_white_also_where_the_screen_is_dark(shown: Chromium, tmp_path: Path) -> None:
    shown.look(1280, scheme="dark")
    shown.evaluate("window.printed = []; new MutationObserver(() => printed.push(getComputedStyle(document.body)"
                   ".backgroundColor)).observe(document.documentElement, {attributes: true})")  # fmt: skip
    assert shown.paper(tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert shown.evaluate("'print' in document.documentElement.dataset") is False


def test_the_picture_of_the_docs_can_be_drawn(browser: Chromium, tmp_path: Path) -> None:
    picture = draw(browser, tmp_path, tmp_path / "page.webp", number=12, epochs=8)
    with Image.open(picture) as drawn:
        assert drawn.size == (WIDTH, HEIGHT)
        assert len(drawn.convert("RGB").getcolors(2**24) or []) > 500
    assert len(texts(browser, ".tip:not([hidden])")) == 1
    assert (browser.said, len(browser.asked)) == ([], 1)


@pytest.mark.slow
def test_200_runs_are_there_in_two_seconds_and_follow_the_pointer(browser: Chromium, tmp_path: Path) -> None:
    """By the processor's time of the page, whatever else the machine does."""
    runs = compare(make_runs(tmp_path / "models", 200, 100))
    (tmp_path / "report.html").write_text(as_html(gather(runs, Wishes()), "200 runs", "1.0"))
    browser.call("Performance.enable", timeDomain="threadTicks")
    browser.look(1280)
    browser.open(tmp_path / "report.html")

    def seconds(*kinds: str) -> float:
        found = {one["name"]: one["value"] for one in browser.call("Performance.getMetrics")["metrics"]}
        return sum(found[f"{kind}Duration"] for kind in kinds)

    assert seconds("Task") < 2
    box = browser.place_of(".u-over")
    browser.settle()
    before = seconds(*OF_THE_PAGE)
    for step in range(30):
        browser.move(box["x"] + 10 * step, box["y"] + 60 + step)
    browser.settle()
    # What is drawn by the processor here, others have a GPU for.
    assert (seconds(*OF_THE_PAGE) - before) / 30 < 1 / 120
    assert (browser.said, len(browser.asked)) == ([], 1)


def test_a_page_that_is_watched_reads_itself_again_as_it_was(browser: Chromium, page: Path, tmp_path: Path) -> None:
    text = re.sub('"written":[0-9.]+', f'"written":{time.time() + 60}', page.read_text())
    watched = tmp_path / "watched.html"
    watched.write_text(text.replace('"again_s":null', '"again_s":0.5'))
    browser.look(1280)
    browser.open(watched, "sort=-acc1&filter=vgg11")
    browser.evaluate("window.isOld = true")
    browser.wait_for("!window.isOld && 'ready' in (document.documentElement?.dataset ?? {})")
    assert browser.evaluate("location.hash") == "#sort=-acc1&filter=vgg11"
    assert texts(browser, "#runs .count") == ["4 of 12 runs"]
    watched.write_text(text)  # the queue is done
    browser.wait_for("!document.getElementById('about')?.textContent.includes('again')")
    assert browser.said == []


def test_a_run_may_be_called_anything(browser: Chromium, tmp_path: Path) -> None:
    (run, *_) = make_runs(tmp_path / "models", 1, 3)
    name = "<img src=x onerror=alert(1)>#?%"
    run.path.rename(tmp_path / name)
    (tmp_path / name / "environment.json").unlink()
    contents = gather(compare([RunFolder(tmp_path / name)]), Wishes(beside=tmp_path))
    (tmp_path / "report.html").write_text(as_html(contents, name, "1.0"))
    browser.open(tmp_path / "report.html")
    assert texts(browser, "#runs tbody a") == [name]
    assert browser.evaluate("document.querySelector('#runs tbody a').href") == (tmp_path / name).as_uri() + "/"
    assert (browser.said, len(browser.asked)) == ([], 1)
