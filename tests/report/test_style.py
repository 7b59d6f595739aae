"""The style sheet of figures, and one that is laid over it."""

from pathlib import Path

import matplotlib
import pytest
from helpers import said_by

from accel_trainer.report.style import STYLE_VARIABLE, find_style, styled, usable_style


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "mine.mplstyle"
    path.write_text("# of my lab\nfont.size: 11\nsavefig.dpi: 100\n")
    return path


def test_a_sheet_changes_what_it_names_and_nothing_else(sheet: Path) -> None:
    with styled():
        own = dict(matplotlib.rcParams)
    with styled(sheet):
        changed = {key for key, value in matplotlib.rcParams.items() if own[key] != value}
    assert changed == {"font.size", "savefig.dpi"}


def test_settings_of_this_process_do_not_count_and_come_back() -> None:
    with matplotlib.rc_context({"font.size": 30, "pdf.fonttype": 3}):
        with styled():
            assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["pdf.fonttype"]) == (8, 42)
        assert matplotlib.rcParams["font.size"] == 30


def test_a_sheet_is_that_of_the_option_or_of_the_environment(sheet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_style() is None
    monkeypatch.setenv(STYLE_VARIABLE, str(sheet))
    assert find_style() == sheet
    other = sheet.with_name("other.mplstyle")
    other.write_text("lines.linewidth: 2\n")
    assert find_style(other) == other


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("font.size: 9\nfont.sizes: 9\n", "line 2: 'font.sizes' is no setting of matplotlib; did you mean 'font.size'"),
        ("font.size: large-ish\n", "font.size"),
        ("nothing of the kind\n", "line 1: 'nothing of the kind' is no setting of matplotlib"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_sheet_is_named_with_what_is_wrong(
    sheet: Path, content: str | None, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is None:
        sheet.unlink()
    else:
        sheet.write_text(content)
    assert said in said_by(find_style, sheet)
    assert str(sheet) in said_by(find_style, sheet)
    # A training draws all the same.
    monkeypatch.setenv(STYLE_VARIABLE, str(sheet))
    assert usable_style() is None
    assert said in capsys.readouterr().err
