"""Occluders made by formula: a stand-in for the Visual Occluders Dataset, in its layout.

A mask is a field over the picture, thresholded at its own quantile: what is highest is covered. Each mask so covers
1 - visibility of the picture, to the pixel.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from accel_trainer.core import keyed_random
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import replacing
from accel_trainer.core.text import did_you_mean, listed
from accel_trainer.data.occluders.bank import EARLIER_NAMES, NAMES_IN_JOBS, OCCLUDERS_PT, holds_masks
from accel_trainer.data.occluders.shapes import (
    COARSE,
    FINE,
    FloatField,
    band_noise,
    curved_lines,
    ellipse,
    filtered_noise,
    patches,
    pink_noise,
    rectangle,
    shapes,
    straight_lines,
    triangle,
)

Pixels = npt.NDArray[np.uint8]

_OLDER_FORMS = {
    "barHorz04": "4 horizontal bars",
    "barHorz08": "8 horizontal bars",
    "barHorz16": "16 horizontal bars",
    "barVert04": "4 vertical bars",
    "barVert08": "8 vertical bars",
    "barVert16": "16 vertical bars",
    "barObl04": "oblique bars (45 or 135 degrees), as wide as those of barHorz04",
    "barObl08": "oblique bars (45 or 135 degrees), as wide as those of barHorz08",
    "barObl16": "oblique bars (45 or 135 degrees), as wide as those of barHorz16",
    "crossBarCardinal": "horizontal and vertical bars, 4, 8 or 16 of each",
    "crossBarOblique": "bars at 45 and at 135 degrees, as wide as those of crossBarCardinal",
    "polkadot": "dots on an irregular grid, 4 to 12 across",
    "polkasquare": "squares on an irregular grid, 4 to 12 across",
    "mudSplash": "blobs with smooth edges, of any size",
    "natural": "shapes as of foliage, with a texture in greens and browns of their own (RGBA)",
    "natural_silhouette": "the shapes of natural without their texture",
}

# By the names of today's Visual Occluders Dataset.
TODAYS_FORMS = {
    **{
        f"{name}_bars_{count:02}": f"{count} {name} bars{widths}"
        for name, widths in (
            ("horizontal", ""),
            ("vertical", ""),
            ("oblique", ", as wide as those of horizontal_bars_*"),
        )
        for count in (2, 4, 8, 16)
    },
    "cardinal_crossed_bars": _OLDER_FORMS["crossBarCardinal"],
    "oblique_crossed_bars": "bars at 45 and at 135 degrees, as wide as those of cardinal_crossed_bars",
    "mud_splash": _OLDER_FORMS["mudSplash"],
    "patch_drop": "squares of a grid of 14 by 14",
    "curved_lines": "arcs of circles",
    "straight_lines": "lines of any direction",
    **{
        f"{how}_{shape}": f"{shape} of any direction{', outlines only' * (how == 'empty')}"
        for shape in ("ellipses", "triangles", "rectangles")
        for how in ("filled", "empty")
    },
    "coarse_noise": "blobs of an eighth of the picture",
    "fine_noise": "blobs of a 32nd of the picture",
    "fine_oriented_noise": "streaks of one direction, a 32nd of the picture apart",
    "pink_noise": "noise with amplitudes of 1 / frequency",
    **{name: _OLDER_FORMS[name] for name in ("polkadot", "polkasquare", "natural", "natural_silhouette")},
}
FORMS = {**_OLDER_FORMS, **TODAYS_FORMS, **{old: TODAYS_FORMS[today] for old, today in NAMES_IN_JOBS.items()}}
"""What can be made and how each looks: names that the Visual Occluders Dataset had or has, and of archived jobs."""


_COUNTS = (4, 8, 16)
_HORIZONTAL, _VERTICAL, _DIAGONALS = 0.0, math.pi / 2, (math.pi / 4, 3 * math.pi / 4)
# Breaks ties (the pixels of a row of a bar are all equal) without moving an edge by more than a pixel.
_TIE_BREAK = 1e-5
# Dark and light ends of two ranges of color, RGB from 0 to 1.
_GREENS = ((0.05, 0.13, 0.03), (0.55, 0.67, 0.27))
_BROWNS = ((0.12, 0.07, 0.04), (0.65, 0.49, 0.33))


def make_occluders(
    folder: Path,
    forms: Sequence[str],
    visibility: Sequence[int],
    *,
    number: int = 100,
    size: int = 256,
    seed: int = 0,
    report: Callable[[str], None],
) -> None:
    """Write `<folder>/<form>/<visibility in %>/occluders.pt`: uint8 of shape (number, 1 or 4, size, size).

    The same arguments make the same files. `report` is called with a line for each file. Raises UserError, before
    anything is written, for forms that do not exist and for levels that have occluders already; and where it cannot
    write.
    """
    levels = [(form, level) for form in dict.fromkeys(forms) for level in sorted(set(visibility))]
    problems = [*_what_cannot_be_made(forms, visibility, number, size), *_what_is_there(folder, levels)]
    if problems:
        raise UserError(*problems)
    for form, level in levels:
        path = folder / form / str(level) / OCCLUDERS_PT
        masks = np.stack([_mask(form, level, index, size, seed) for index in range(number)])
        _save(masks, path)
        report(f"{path}: {number} masks")


def _what_cannot_be_made(forms: Sequence[str], visibility: Sequence[int], number: int, size: int) -> list[str]:
    unknown = [form for form in dict.fromkeys(forms) if form not in FORMS]
    return [
        *(f"no form {form!r}; there are {listed(FORMS, at_most=99)}{did_you_mean(form, FORMS)}" for form in unknown),
        *(f"visibility {level}: give a percentage from 1 to 99" for level in visibility if not 1 <= level <= 99),
        *(f"{name} {value}: give at least 1" for name, value in (("number", number), ("size", size)) if value < 1),
    ]


def _what_is_there(folder: Path, levels: list[tuple[str, int]]) -> list[str]:
    taken = [path for form, level in levels if holds_masks(path := folder / form / str(level))]
    return [f"{path} already holds occluders; choose another folder, or delete it" for path in taken]


def _save(masks: Pixels, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Given a name, torch.save would write that name into the file, which then differed from run to run.
        with replacing(path) as aside, aside.open("wb") as file:
            torch.save(torch.from_numpy(masks), file)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _mask(form: str, visibility: int, index: int, size: int, seed: int) -> Pixels:
    """One mask: uint8 of shape (1 or 4, size, size), alpha 0 or 255."""
    # A silhouette is drawn as its textured twin is, and a form as under its earlier name.
    shape = {"natural_silhouette": "natural", **EARLIER_NAMES, **NAMES_IN_JOBS}.get(form, form)
    rng = np.random.Generator(np.random.Philox(keyed_random.key(seed, shape, visibility, index)))
    alpha = _highest(_FIELDS[shape](rng, size), 1 - visibility / 100, rng)
    return np.concatenate([_texture(rng, size), alpha]) if form == "natural" else alpha


def _highest(field: FloatField, fraction: float, rng: np.random.Generator) -> Pixels:
    """255 where the field is highest, on this fraction of its pixels, 0 elsewhere: uint8 of shape (1, size, size)."""
    values = field.ravel() + _TIE_BREAK * rng.random(field.size, dtype=np.float32)
    covered = round(fraction * field.size)
    mask = np.zeros(field.size, np.uint8)
    mask[np.argpartition(-values, min(covered, field.size - 1))[:covered]] = 255
    return mask.reshape(1, *field.shape)


# -- fields: float32 of shape (size, size) ----------------------------------------------------------------------


def _wave(rng: np.random.Generator, size: int, count: int, angle: float) -> FloatField:
    """A triangular wave from 0 to 1 with a random phase, `count` periods in the picture's height; angle 0: rows."""
    along = np.arange(size, dtype=np.float32) * np.float32(count / size)
    turns = along[:, None] * np.float32(math.cos(angle)) + along * np.float32(math.sin(angle)) + rng.random()
    return 1 - np.abs(2 * (turns % 1) - 1, dtype=np.float32)


def _bars(rng: np.random.Generator, size: int, count: int, angles: Sequence[float]) -> FloatField:
    return _wave(rng, size, count, angles[int(rng.integers(len(angles)))])


def _crossed_bars(rng: np.random.Generator, size: int, angles: tuple[float, float]) -> FloatField:
    count = _COUNTS[rng.integers(len(_COUNTS))]
    return np.maximum(_wave(rng, size, count, angles[0]), _wave(rng, size, count, angles[1]))


def _dots(rng: np.random.Generator, size: int, distance: Callable[[FloatField, FloatField], FloatField]) -> FloatField:
    """Nearness to the nearest point of a jittered grid, in units of its cells."""
    count = rng.uniform(4, 12)
    cells = math.ceil(count) + 3  # one more on each side, and one for the offset
    y, x = (np.arange(size, dtype=np.float32) * np.float32(count / size) + np.float32(1 + rng.random()) for _ in "yx")
    points_y, points_x = (rng.uniform(0.25, 0.75, (2, cells, cells)) + np.mgrid[:cells, :cells]).astype(np.float32)
    rows, columns = y.astype(int), x.astype(int)
    nearest = np.full((size, size), np.inf, np.float32)
    # The jitter is at most a quarter of a cell: the nearest point is in a pixel's own cell or in one next to it.
    for down, right in np.ndindex(3, 3):
        cell = (rows[:, None] + (down - 1), columns + (right - 1))
        np.minimum(nearest, distance(points_y[cell] - y[:, None], points_x[cell] - x), out=nearest)
    return -nearest


def _euclidean_squared(dy: FloatField, dx: FloatField) -> FloatField:
    return dy * dy + dx * dx


def _chebyshev(dy: FloatField, dx: FloatField) -> FloatField:
    return np.maximum(np.abs(dy), np.abs(dx))


def _frequencies(rows: int, columns: int) -> FloatField:
    """Distance from the origin of Fourier space in cycles per picture, of shape (rows, columns)."""
    vertical = np.fft.fftfreq(rows, 1 / rows)[:, None]
    horizontal = np.fft.fftfreq(rows, 1 / rows)[:columns]
    field: FloatField = np.hypot(vertical, horizontal).astype(np.float32)
    return field


def _blobs(rng: np.random.Generator, size: int) -> FloatField:
    """Gaussian-filtered noise, the Gaussian's standard deviation from a fiftieth of the picture to a twelfth."""
    sigma = math.exp(rng.uniform(math.log(1 / 50), math.log(1 / 12)))
    frequency = _frequencies(size, size // 2 + 1)
    return filtered_noise(rng, size, np.exp(-2 * (math.pi * sigma * frequency) ** 2))


def _foliage(rng: np.random.Generator, size: int) -> FloatField:
    """Noise of five octaves, each of half the scale and half the amplitude of the one before."""
    sigma = math.exp(rng.uniform(math.log(1 / 30), math.log(1 / 10)))
    square = (math.pi * sigma * _frequencies(size, size // 2 + 1)) ** 2
    # Half the scale lets four times the power through, which is twice the amplitude: a quarter of it is half.
    gain = sum(0.25**octave * np.exp(-2 * square / 4**octave) for octave in range(5))
    return filtered_noise(rng, size, np.asarray(gain, np.float32))


def _texture(rng: np.random.Generator, size: int) -> Pixels:
    """RGB between greens and browns, hue and brightness each 1/f noise: uint8 of shape (3, size, size).

    It continues where the mask is transparent, so that resizing brings no dark rims.
    """
    gain = 1 / np.maximum(_frequencies(size, size), 1)
    noise = rng.standard_normal((2, size, size), dtype=np.float32)
    # The real and the imaginary part of complex noise are two independent fields.
    field = np.fft.ifft2((noise[0] + 1j * noise[1]) * gain)
    hue, brightness = (_logistic(part) for part in (field.real, field.imag))
    channels = []
    for dark_green, light_green, dark_brown, light_brown in zip(*_GREENS, *_BROWNS, strict=True):
        dark = dark_green + hue * (dark_brown - dark_green)
        light = light_green + hue * (light_brown - light_green)
        channels.append(dark + brightness * (light - dark))
    return np.round(np.stack(channels) * 255).astype(np.uint8)


def _logistic(field: npt.NDArray[np.floating]) -> FloatField:
    """From 0 to 1, the mean at 0.5."""
    squashed: FloatField = (1 / (1 + np.exp(-2 * (field - field.mean()) / (field.std() or 1)))).astype(np.float32)
    return squashed


_FIELDS: dict[str, Callable[[np.random.Generator, int], FloatField]] = {
    **{f"barHorz{count:02}": partial(_bars, count=count, angles=[_HORIZONTAL]) for count in _COUNTS},
    **{f"barVert{count:02}": partial(_bars, count=count, angles=[_VERTICAL]) for count in _COUNTS},
    **{f"barObl{count:02}": partial(_bars, count=count, angles=_DIAGONALS) for count in _COUNTS},
    "crossBarCardinal": partial(_crossed_bars, angles=(_HORIZONTAL, _VERTICAL)),
    "crossBarOblique": partial(_crossed_bars, angles=_DIAGONALS),
    "polkadot": partial(_dots, distance=_euclidean_squared),
    "polkasquare": partial(_dots, distance=_chebyshev),
    "mudSplash": _blobs,
    "natural": _foliage,
    "horizontal_bars_02": partial(_bars, count=2, angles=[_HORIZONTAL]),
    "vertical_bars_02": partial(_bars, count=2, angles=[_VERTICAL]),
    "oblique_bars_02": partial(_bars, count=2, angles=_DIAGONALS),
    "patch_drop": patches,
    "curved_lines": curved_lines,
    "straight_lines": straight_lines,
    "filled_ellipses": partial(shapes, distance=ellipse, is_filled=True),
    "empty_ellipses": partial(shapes, distance=ellipse, is_filled=False),
    "filled_triangles": partial(shapes, distance=triangle, is_filled=True),
    "empty_triangles": partial(shapes, distance=triangle, is_filled=False),
    "filled_rectangles": partial(shapes, distance=rectangle, is_filled=True),
    "empty_rectangles": partial(shapes, distance=rectangle, is_filled=False),
    "coarse_noise": partial(band_noise, periods=COARSE),
    "fine_noise": partial(band_noise, periods=FINE),
    "fine_oriented_noise": partial(band_noise, periods=FINE, is_oriented=True),
    "pink_noise": pink_noise,
}
