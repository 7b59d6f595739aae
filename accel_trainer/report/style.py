"""How figures look, and the files they are saved in: the style sheet of this package, and one that is laid over it."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from accel_trainer.core.errors import SetupUnusable, UserError
from accel_trainer.core.files import MEBIBYTE, expand_home, read_text, replacing
from accel_trainer.core.text import did_you_mean, first_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE_VARIABLE = "ACCEL_TRAIN_STYLE"
OWN_STYLE = Path(__file__).with_name("figure.mplstyle")
SUFFIXES = ("png", "pdf", "svg")
# The same numbers give the same file.
NO_DATE: Mapping[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def find_style(given: Path | None = None) -> Path | None:
    """The style sheet that is laid over this package's: one that was given, else that of ACCEL_TRAIN_STYLE, else none.

    Raises UserError for a file that is no style sheet.
    """
    if given is not None:
        _check(given, where=given, option="style")
        return given
    if not (named := os.environ.get(STYLE_VARIABLE)):
        return None
    path = expand_home(named)
    _check(path, where=f"{STYLE_VARIABLE}={path}")
    return path


def usable_style() -> Path | None:
    """That of the environment. One that cannot be used is named on standard error, and costs only the style."""
    try:
        return find_style()
    except UserError as error:
        print(f"{error}; figures are drawn without it", file=sys.stderr)
        return None


def _check(path: Path, *, where: Path | str, option: str | None = None) -> None:
    """Raises UserError for what cannot be read, a setting that matplotlib does not have, and a value that it does not
    take."""
    import matplotlib

    try:
        lines = read_text(path, MEBIBYTE).splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"cannot be read: {why}", where=where, option=option) from error
    for number, line in enumerate(lines, start=1):
        setting, colon, _ = line.partition("#")[0].partition(":")
        name = setting.strip()
        if name and not (colon and name in matplotlib.rcParams):
            near = did_you_mean(name, matplotlib.rcParams)
            raise UserError(f"line {number}: {name!r} is no setting of matplotlib{near}", where=where, option=option)
    try:
        matplotlib.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
    except ValueError as error:
        raise UserError(first_line(error), where=where, option=option) from error


@contextmanager
def styled(over: Path | None = None) -> Iterator[None]:
    """Figures that are made and saved here look as the style sheet of this package says, and as the one laid over it.

    matplotlib's own files and settings of this process do not count. Raises SetupUnusable where no font can be read.
    """
    from matplotlib import font_manager, style

    sheets = [str(sheet) for sheet in (OWN_STYLE, over) if sheet is not None]
    with style.context(sheets, after_reset=True):
        try:
            font_manager.findfont(font_manager.FontProperties())
        except ValueError as error:  # where no more files may be opened, and the list of fonts is empty
            raise SetupUnusable(f"matplotlib finds no font: {first_line(error)}") from error
        yield


def save(figure: "Figure", path: Path | BinaryIO, suffix: str) -> None:
    """Write a figure as png, pdf or svg. Raises OSError."""
    with warnings.catch_warnings():
        # A name may have characters that the font has not.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing", category=UserWarning)
        figure.savefig(path, format=suffix, metadata=NO_DATE.get(suffix))


def save_all(
    figure: "Figure",
    path_of: Callable[[str], Path],
    suffixes: Sequence[str] = SUFFIXES,
    *,
    aside_in: Path | None = None,
) -> None:
    """Write a figure in several forms; the files appear whole, by renames. path_of: a path for a suffix; aside_in: as
    of `core.files.replacing`. Raises OSError."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # all is in its place, in each form
    for suffix in suffixes:
        with replacing(path_of(suffix), aside_in=aside_in) as aside:
            save(figure, aside, suffix)
