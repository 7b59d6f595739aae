"""The site of `make site`: every page, link and letter of it is in its folder."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from chromium import Chromium, running_chromium
from error_messages import messages
from helpers import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` does. Only to be read."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with running_chromium() as started:
        yield started


SHOWN = "document.querySelector('article h1') !== null"


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_pages_fit_a_phone_and_a_screen_and_say_no_error(site, browser, width, scheme):
    browser.look(width, scheme=scheme, is_phone=width < 600)
    for name in ("index", "start", "queue", "parameters", "errors", "api", "compare", "internals"):
        browser.open(site / f"{name}.html", ready=SHOWN)
        browser.settle()
        assert browser.said == [], name
        assert [url for url in browser.asked if not url.startswith("file://")] == [], name
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        is_dark = browser.evaluate("document.body.dataset.mdColorScheme") == "slate"
        assert is_dark == (scheme == "dark"), name


def test_a_search_finds_a_page(site, browser):
    browser.look(1280)
    browser.open(site / "index.html", ready=SHOWN)
    browser.click("[data-md-component=search-query]")
    browser.type("noise ceiling")
    browser.press("ArrowLeft")  # it looks when a key goes up
    found = "[...document.querySelectorAll('.md-search-result__link')].map(one => one.pathname.split('/').pop())"
    browser.wait_for(f"({found}).includes('rsa.html')")
    assert browser.said == []


def test_every_document_is_a_page(site):
    pages = {path.stem for path in (REPOSITORY / "docs").glob("*.md")} | {"index", "contributing", "changelog"}
    assert {path.stem for path in site.glob("*.html")} == pages | {"404"}


def test_no_link_is_dead_and_nothing_is_fetched_from_elsewhere(site):
    pages = {path.name: path.read_text() for path in site.glob("*.html") if path.name != "404.html"}
    anchors = {name: set(re.findall(r'\bid="?([^" >]+)', text)) for name, text in pages.items()}
    checked = 0
    for name, text in pages.items():
        for tag, link in re.findall(r'<(\w+)\b[^>]*?\b(?:href|src)="?([^" >]+)', text):
            parts = urlsplit(unescape(link))
            if parts.scheme or parts.netloc:
                assert tag == "a", f"{name} needs {link}"
                continue
            target = unquote(parts.path) or name
            assert (site / target).exists(), f"{name}: {link}"
            if parts.fragment and target in anchors:
                assert unquote(parts.fragment) in anchors[target] | {"__search", "__drawer"}, f"{name}: {link}"
            checked += 1
    assert checked > 1000


def test_the_page_of_errors_has_every_message(site):
    page = (site / "errors.html").read_text()
    words = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", page)))
    for those in messages().values():
        for message in those:
            plain = re.sub(r"\s+", " ", message.text.replace("……", "…").replace("`", ""))
            assert plain in words, message
