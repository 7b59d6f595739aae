"""Spatter of water and mud on the lens, with what the published code uses of OpenCV."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from accel_trainer.degradations.degradation import Pixels
from accel_trainer.degradations.imagenet_c.pixel_values import Float32s, blurred, cut
from accel_trainer.degradations.imagenet_c.severity import Constants
from accel_trainer.degradations.keyed_numbers import Floats, KeyedNumbers

Gray = npt.NDArray[np.uint8]
WATER, MUD = (175, 238, 238), (63, 42, 20)
MUD_THRESHOLD = 0.8
WEAK_EDGE, STRONG_EDGE = 50, 150
FARTHEST = 20.0
RELIEF = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
# Lengths of steps to neighbors of a pixel, in OpenCV's distances in a mask of 5 by 5.
_STEPS = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
_TANGENTS = (0.4142135623730951, 2.414213562373095)
_ALL_AROUND = np.ones((3, 3), np.bool_)


def spatter(image: Pixels, constants: Constants, numbers: KeyedNumbers) -> Pixels:
    """Drops where a smooth random field is high: bright ones of water, or mud."""
    mean, spread, sigma, threshold, strength, is_mud = constants
    field = blurred(mean + spread * numbers.normal("drops", image.shape[:2]), sigma)
    if is_mud:
        return _with_mud(image, field, threshold, strength)
    drops = np.clip(np.where(field < threshold, 0, field) * 255, 0, 255).astype(np.uint8)
    water = drops * _relief(drops)
    highest = water.max()
    # Where there is no drop, the published code divides by nothing, and the image stays.
    share = water / highest * strength if highest else water
    return cut(image / 255 + share[..., None] * (np.array(WATER) / 255))


def _with_mud(image: Pixels, field: Floats, threshold: float, sigma: float) -> Pixels:
    mud = blurred((field > threshold).astype(np.float64), sigma)
    mud = np.where(mud < MUD_THRESHOLD, 0, mud)[..., None]
    return cut(image / 255 * (1 - mud) + np.array(MUD) / 255 * mud)


def _relief(drops: Gray) -> Float32s:
    """Light from one side on what rises with the distance from the drops' edges: float32 (size, size), 0..255."""
    distance = np.minimum(_distance(_edges(drops)), FARTHEST).astype(np.float32)
    height = ndimage.uniform_filter(distance, 3, mode="mirror").astype(np.uint8)
    lit = ndimage.correlate(_equalized(height).astype(np.int64), RELIEF, mode="mirror")
    lit = np.clip(lit, 0, 255).astype(np.float64)
    return np.asarray(np.floor(ndimage.uniform_filter(lit, 3, mode="mirror") + 0.5), np.float32)


def _edges(gray: Gray) -> npt.NDArray[np.bool_]:
    """Canny's edges, gradients by Sobel as the sum of their parts, as OpenCV has them: (size, size)."""
    values = gray.astype(np.int64)
    across = ndimage.sobel(values, axis=1, mode="nearest")
    down = ndimage.sobel(values, axis=0, mode="nearest")
    size = np.abs(across) + np.abs(down)
    around = np.pad(size, 1)

    def beside(row: int, column: int) -> npt.NDArray[np.int64]:
        return around[1 + row : 1 + row + len(gray), 1 + column : 1 + column + len(gray)]

    flat, steep = (np.abs(down) < tangent * np.abs(across) for tangent in _TANGENTS)
    is_left_edge = (size > beside(0, -1)) & (size >= beside(0, 1))
    is_upper_edge = (size > beside(-1, 0)) & (size >= beside(1, 0))
    falls = (size > beside(-1, -1)) & (size > beside(1, 1))
    rises = (size > beside(-1, 1)) & (size > beside(1, -1))
    is_oblique_edge = np.where((across ^ down) < 0, rises, falls)
    is_crest = np.where(flat, is_left_edge, np.where(steep, is_oblique_edge, is_upper_edge))
    weak = is_crest & (size > WEAK_EDGE)
    return np.asarray(ndimage.binary_propagation(weak & (size > STRONG_EDGE), _ALL_AROUND, weak))


def _distance(edges: npt.NDArray[np.bool_]) -> Floats:
    """To the nearest edge, up to FARTHEST and as far as steps of `_STEPS` go: float64 (size, size)."""
    if not edges.any():
        return np.full(edges.shape, FARTHEST)
    nearest = ndimage.distance_transform_edt(~edges, return_distances=False, return_indices=True)
    away = np.abs(nearest - np.indices(edges.shape))
    longer, shorter = away.max(axis=0), away.min(axis=0)
    knight, oblique = _STEPS[1, 2], _STEPS[1, 1]
    # Of the edge that is nearest by Euclid; by steps another one may be nearer by a little.
    distance: Floats = np.where(
        longer >= 2 * shorter,
        longer - 2 * shorter + knight * shorter,
        knight * (longer - shorter) + oblique * (2 * shorter - longer),
    )
    return distance


def _equalized(gray: Gray) -> Gray:
    """Its histogram made flat: uint8 of the same shape."""
    counts = np.bincount(gray.ravel(), minlength=256)
    lowest = int(np.flatnonzero(counts)[0])
    others = gray.size - counts[lowest]
    if not others:
        return gray
    counts[lowest] = 0
    table = np.rint(np.cumsum(counts) * np.float32(255 / others))
    return np.asarray(table.astype(np.uint8)[gray])
