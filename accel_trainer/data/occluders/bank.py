"""The bank of occluders: folders of masks, laid out as in the Visual Occluders Dataset.

`<folder>/<form>/<visibility in %>/` holds `occluders.pt` or PNGs, whose masks cover 1 - visibility of an image on
average.
"""

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.core.outage import Missing, is_folder, persistently
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.data.occluders.masks import Masks, TensorMasks
from accel_trainer.data.occluders.png_masks import PngMasks

log = logging.getLogger(__name__)

OCCLUDERS_PT = "occluders.pt"
WHERE_FROM = "https://github.com/ddcoggan/VisualOccludersDataset"
INVERTED_MARGIN = 0.2
# What forms were called in earlier editions of the data set, and are called in today's.
_BARS = {"barHorz": "horizontal_bars_", "barVert": "vertical_bars_", "barObl": "oblique_bars_"}
_COUNTS = ("02", "04", "08", "16")
_NATURAL = re.compile(r"natural(?P<texture>T|Unt)extured(Cropped)?\d*")
_OWN_BARS = re.compile(r"bar(?P<way>Horz|Vert|Obl|All)(?P<count>\d\d)")
_TODAYS_NAMES = {
    **{f"{old}{count}": f"{new}{count}" for old, new in _BARS.items() for count in ("04", "08", "16")},
    "crossBarCardinal": "cardinal_crossed_bars",
    "crossBarOblique": "oblique_crossed_bars",
    "mudSplash": "mud_splash",
}
EARLIER_NAMES = {new: old for old, new in _TODAYS_NAMES.items()}
"""{today's: the earlier one}"""
NAMES_IN_JOBS = {
    **{f"{old}02": f"{new}02" for old, new in _BARS.items()},
    **{
        f"{shape}_{how}": f"{how}_{shape}"
        for shape in ("rectangles", "triangles", "ellipses")
        for how in ("empty", "filled")
    },
}
"""{name in archived job files: that of the folder today}"""
OTHER_NAMES = {**_TODAYS_NAMES, **EARLIER_NAMES, **NAMES_IN_JOBS, **{new: old for old, new in NAMES_IN_JOBS.items()}}
"""The same form in another edition: {name: name}."""


@dataclass(frozen=True)
class Form:
    """One form of occluder, such as mudSplash, and its masks by visibility in percent, ascending."""

    name: str
    levels: dict[int, Masks]


def open_forms(folder: Path, forms: Sequence[str], visibility: Sequence[int] | None) -> list[Form]:
    """The asked forms, each once and in the order asked for, with the asked levels (None: all there are).

    A form that is not there by its name is looked for by the one that another edition of the data set has for it.

    A sample of each level is looked at; the rest is read when it is used. Raises UserError with a line for each
    mistake: what is not there, cannot be read, or is inverted.
    """
    folder = expand_home(folder)
    if not is_folder(folder):
        raise UserError(
            f"no folder {folder}; get the Visual Occluders Dataset ({WHERE_FROM}), "
            f"or make a stand-in: accel-train make-occluders {folder}",
            key="Occlusion.occluder_dir",
        )
    problems: list[str] = []
    try:
        opened = [_open_form(folder, name, visibility, problems) for name in dict.fromkeys(forms)]
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}", key="Occlusion.occluder_dir") from error
    if problems:
        raise UserError(*problems)
    return opened


def holds_masks(folder: Path) -> bool:
    """Whether there is an occluders.pt or a PNG in this folder."""
    return folder.is_dir() and ((folder / OCCLUDERS_PT).exists() or bool(_png_names(folder)))


def _open_form(folder: Path, name: str, visibility: Sequence[int] | None, problems: list[str]) -> Form:
    form = Form(name, {})
    there_now = _read_folder(folder, _folders_in)
    if name not in there_now and (other := OTHER_NAMES.get(name)) in there_now:
        log.info("%s has %s under its other name, %s", folder, name, other)
        name = str(other)
    forms = _read_folder(folder, _folders_in, needs=name)
    if name not in forms:
        has = f"{folder} has {listed(forms)}" if forms else f"there are no folders in {folder}"
        other_names = [other for other, equal in OTHER_NAMES.items() if equal in forms and other not in forms]
        near = _no_equal(name) or did_you_mean(name, [*forms, *other_names])
        problems.append(f"Occlusion.form: no form {name!r}; {has}{near}")
        return form
    levels = filter(_is_visibility, _read_folder(folder / name, _folders_in))
    there = {int(level): folder / name / level for level in levels}
    if not there:
        problems.append(f"Occlusion.form: {folder / name} has no folders of a visibility in percent, such as 50/")
    elif absent := sorted(set(visibility or ()) - set(there)):
        has = listed(map(str, sorted(there)), at_most=100)
        problems.append(f"Occlusion.visibility: {name} has no {listed(map(str, absent))}; {folder / name} has {has}")
    for level in sorted(there if visibility is None else there.keys() & set(visibility)):
        try:
            form.levels[level] = _open_level(there[level], level)
        except UserError as error:
            problems.extend(error.problems)
    return form


def _no_equal(name: str) -> str:
    """What is near to a form of archived jobs that no edition of the data set has by another name; '' for others."""
    if natural := _NATURAL.fullmatch(name):
        today = "natural" if natural["texture"] == "T" else "natural_silhouette"
        return (
            f"; the data set has such shapes as {today}, in one folder, where these jobs had several (1 to train, 2 to "
            "test people with): name that, or put your own folder there"
        )
    if (bars := _OWN_BARS.fullmatch(name)) and name not in OTHER_NAMES:
        ways = _BARS.values() if bars["way"] == "All" else [_BARS[f"bar{bars['way']}"]]
        near = [f"{way}{bars['count'] if bars['count'] in _COUNTS else '*'}" for way in ways]
        return f"; the data set has {listed(near)}, with 02, 04, 08 and 16 bars, and none like it"
    return ""


def _open_level(folder: Path, visibility: int) -> Masks:
    path = folder / OCCLUDERS_PT
    names = _read_folder(folder, _mask_files)
    if not names:
        raise UserError(f"{folder} has no {OCCLUDERS_PT} and no PNGs", key="Occlusion.occluder_dir")
    masks = TensorMasks(path) if names == [OCCLUDERS_PT] else PngMasks(folder, names)
    covered, visible = masks.sampled_coverage(), visibility / 100
    if abs(covered - (1 - visible)) - abs(covered - visible) > INVERTED_MARGIN:
        raise UserError(
            f"{folder}: masks cover {covered:.0%} where visibility {visibility} means "
            f"{100 - visibility}%; invert them: 255 is what covers the image",
            key="Occlusion.occluder_dir",
        )
    return masks


def _read_folder(folder: Path, read: Callable[[Path], list[str]], needs: str | None = None) -> list[str]:
    """Names in a folder; one that had any before, or the one that is needed, is waited for. Raises OSError."""

    def look() -> list[str]:
        names = read(folder)
        if not names or (needs is not None and needs not in names):
            raise Missing(f"has no {needs or 'occluders'}", folder)
        return names

    try:
        return persistently(look, lambda: str(folder), may_be_missing=True)
    except Missing:
        return read(folder)


def _mask_files(folder: Path) -> list[str]:
    """occluders.pt alone, where it is there, else PNGs."""
    return [OCCLUDERS_PT] if (folder / OCCLUDERS_PT).exists() else _png_names(folder)


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_visibility(name: str) -> bool:
    return name.isascii() and name.isdecimal() and int(name) <= 100


def _png_names(folder: Path) -> list[str]:
    """Sorted; hidden files, such as those that macOS leaves next to others, do not count."""
    names = (entry.name for entry in os.scandir(folder))
    return sorted(name for name in names if name.lower().endswith(".png") and not name.startswith("."))
