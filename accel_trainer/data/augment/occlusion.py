"""Occluders in front of the images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from tempfile import TemporaryFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.config.augmentations import Occlusion
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.data.augment.effect import change_rows
from accel_trainer.data.augment.geometry import CROP_NUMBERS, IMAGENET, Statistics, crop_boxes, flipped_rows, normalize
from accel_trainer.data.augment.mask_places import HEIGHT, MaskPlaces
from accel_trainer.data.augment.noise import fourier_field, pink_spectrum
from accel_trainer.data.augment.windows import multiply_by_opacity, read_masks, resized
from accel_trainer.data.native import pixels
from accel_trainer.data.native.calls import CUT_NUMBERS, Cuts
from accel_trainer.data.native.library import Kernel, kernel
from accel_trainer.data.occluders.bank import Form, open_forms
from accel_trainer.data.occluders.masks import Masks, Pixels
from accel_trainer.data.rng.draws import Draws, Integers, Keys, Numbers, Parameters, choose, which

# A window of the mask is used, as the authors of the Visual Occluders Dataset do: 224 of 256 pixels.
WINDOW = 7 / 8
RESIZE_SCALE = (0.8, 1.0)
UNOCCLUDED = 100


@dataclass(frozen=True)
class OcclusionParameters(Parameters):
    """masks: index into all masks, -1 for no occluder; visibility: percent, 100 for no occluder; item: which mask of
    those; place: flips and position of the window, float64 (rows, 4); crop: of `random_resize`; color: index into the
    job's colors; rgb: a random color, float64 (rows, 3) in 0..1; key: of pink noise; is_flipped: whether all that is in
    front of the image is flipped with it, bool (rows,).
    """

    masks: Integers
    visibility: Integers
    item: Integers
    place: Numbers
    crop: Numbers
    color: Integers
    rgb: Numbers
    key: Keys
    is_flipped: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PreparedOcclusion(OcclusionParameters):
    """table: what the compiled kernel is told of each row: int64 (rows, OCCLUDER_NUMBERS)."""

    table: pixels.OccluderTable


@dataclass(frozen=True)
class Occluders:
    """What goes in front of some images.

    rows: which images, int64 (k,); cover: opacity, uint8 (k, 1, size, size); textured: which of the k bring pixels of
    their own, int64 (m,); textures: those pixels times the opacity, uint8 (m, 3, size, size); drawn: parameters of
    the k rows.
    """

    rows: Integers
    cover: Tensor
    textured: Integers
    textures: Tensor
    drawn: OcclusionParameters

    def pinned(self) -> "Occluders":
        """The same in pinned memory, from which the host need not wait for a copy to a GPU. Not run on one."""
        return replace(self, cover=_pinned(self.cover), textures=_pinned(self.textures))


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if tensor.numel() else tensor


class Occlude:
    """Occlusion as a job describes it. Raises UserError where the folder has not what it asks for."""

    def __init__(
        self, section: Occlusion, image_size: int, *, gray_noise: bool = False, flips_with_crop: bool = False
    ) -> None:
        """gray_noise: whether pink noise is the same in the three channels; flips_with_crop: whether images are flipped
        by their crop, and occluders with them."""
        self.section = section
        self.image_size = image_size
        self.flips_with_crop = flips_with_crop
        self.forms = open_forms(expand_home(section.occluder_dir), section.form, section.wanted_levels)
        self.all_masks: list[Masks] = []
        visibility: list[int] = []
        # For each form, how often each level is drawn, and which masks those are: -1 for none, and for no level.
        self._probabilities: list[list[float]] = []
        self._masks_of_level: list[Integers] = []
        for form in self.forms:
            place = {level: len(self.all_masks) + i for i, level in enumerate(form.levels)}
            self.all_masks += form.levels.values()
            visibility += form.levels
            levels = _levels(section, form)
            self._probabilities.append(_probabilities(section, levels))
            self._masks_of_level.append(np.array([*(place.get(level, -1) for level in levels), -1]))
        # The last of both is for -1.
        self._visibility = np.array([*visibility, UNOCCLUDED])
        self._counts = np.array([*map(len, self.all_masks), 0])
        # Not a number where it is drawn.
        self._colors = np.array([[np.nan] * 3 if isinstance(color, str) else color for color in section.color]) / 255
        self._noisy = np.flatnonzero([color == "pink_noise" for color in section.color])
        self._no_cover, self._no_texture = (
            torch.empty(0, channels, image_size, image_size, dtype=torch.uint8) for channels in (1, 3)
        )
        self._places = MaskPlaces(self.all_masks)
        num_spectra = 1 if gray_noise else 3
        self.pink = pink_spectrum(image_size)[:num_spectra] if "pink_noise" in section.color else None

    def draw(self, draws: Draws) -> OcclusionParameters:
        """Which mask is in front of each row, where, and what it is filled with."""
        numbers = draws.uniforms("occlusion", 11)
        masks = self._masks(numbers[:, 0], numbers[:, 1])
        if self.section.views is not None and draws.num_views > 1:
            masks = np.where(np.isin(draws.views, self.section.views), masks, -1)
        return OcclusionParameters(
            masks=masks,
            visibility=self._visibility[masks],
            item=which(numbers[:, 2], self._counts[masks]),
            place=numbers[:, 3:7],
            crop=draws.uniforms("occluder crop", CROP_NUMBERS) if self.section.random_resize else numbers[:, :0],
            color=which(numbers[:, 7], len(self.section.color)),
            rgb=numbers[:, 8:11],
            key=draws.keys("occluder colour"),
            is_flipped=flipped_rows(draws) if self.flips_with_crop else np.zeros(len(draws), dtype=bool),
        )

    def _masks(self, level_number: Numbers, form_number: Numbers) -> Integers:
        """Which masks: one number decides whether there is an occluder and of which visibility, another its form."""
        by_form = [
            masks[choose(level_number, probabilities)]
            for masks, probabilities in zip(self._masks_of_level, self._probabilities, strict=True)
        ]
        return np.stack(by_form)[which(form_number, len(self.forms)), np.arange(len(form_number))]

    @property
    def is_elementwise(self) -> bool:
        """Unless noise is made by matrices."""
        return self.pink is None

    def fetch(self, parameters: OcclusionParameters) -> Occluders:
        """The masks of the rows that have one, at the size of the images. Raises UserError for an unreadable PNG."""
        rows = np.flatnonzero(parameters.masks >= 0)
        drawn = parameters if len(rows) == len(parameters.masks) else parameters[rows]
        if len(rows) == 0:
            return Occluders(rows, self._no_cover, rows, self._no_texture, drawn)
        chosen = zip(drawn.masks.tolist(), drawn.item.tolist(), strict=True)
        masks = read_masks([(self.all_masks[number], item) for number, item in chosen])
        cuts = self._cuts(drawn, np.array([mask.shape[1:] for mask in masks], np.int64))
        textured = np.flatnonzero([len(mask) == 4 for mask in masks])
        for row in textured.tolist():
            top, left, height, width = cuts[row, :4].tolist()
            multiply_by_opacity(masks[row][:, top : top + height, left : left + width])
        cover = self._resized([mask[-1:] for mask in masks], cuts, drawn)
        textures = self._no_texture
        if len(textured):
            textures = self._resized([masks[row][:3] for row in textured.tolist()], cuts[textured], drawn[textured])
        return Occluders(rows, cover, textured, textures, drawn)

    def prepare(self, parameters: OcclusionParameters) -> OcclusionParameters:
        """The parameters with what `cover` tells the compiled kernel, of many rows at once; as they are where it cannot
        be used: without it, with noise, and where masks are not stored as they are read."""
        compiled = kernel()
        if compiled is None or self.pink is not None or not covers_as_torch(compiled):
            return parameters
        rows = np.flatnonzero(parameters.masks >= 0)
        drawn = parameters if len(rows) == len(parameters.masks) else parameters[rows]
        places = self._places.of(drawn.masks, drawn.item)
        if places is None:
            return parameters
        table = np.zeros((len(parameters.masks), pixels.OCCLUDER_NUMBERS), np.int64)
        own = np.empty((len(rows), pixels.OCCLUDER_NUMBERS), np.int64)
        own[:, pixels.FILE : pixels.CUT] = places
        own[:, pixels.CUT : pixels.UPSIDE_DOWN] = self._cuts(drawn, places[:, HEIGHT:])
        own[:, pixels.UPSIDE_DOWN] = drawn.place[:, 0] < 0.5
        own[:, pixels.FILL :].view(np.float64)[:] = self._rgb(drawn)
        table[rows] = own
        return PreparedOcclusion(**vars(parameters), table=table)

    def cover(
        self,
        images: Tensor,
        parameters: OcclusionParameters,
        out: Tensor | None = None,
        statistics: Statistics | None = None,
    ) -> int:
        """Put occluders in front of images by the compiled kernel: the bits of `fetch` and `apply`, and of bytes.

        images: uint8 (n, 3, size, size), which are overwritten; with statistics all of them become normalized floats in
        `out`, float32 of that shape. How many images, from the first, are done: none where the parameters are not
        prepared; not all where a mask cannot be read. The others are for `fetch`, which says why.
        """
        compiled = kernel()
        if compiled is None or not isinstance(parameters, PreparedOcclusion):
            return 0
        rows = np.flatnonzero(parameters.masks >= 0)
        table = parameters.table[rows]
        table[:, pixels.ROW] = rows
        numbers = None if statistics is None else (*statistics.mean, *statistics.std)
        return pixels.occlude(compiled, images, table, numbers, out)

    def _cuts(self, drawn: OcclusionParameters, sizes: Integers) -> Cuts:
        """The windows of masks, whose heights and widths are int64 (k, 2), flipped sideways or not."""
        corners, sides = np.zeros_like(sizes), sizes
        if self.section.random_resize:
            boxes = crop_boxes(sizes, drawn.crop, RESIZE_SCALE)
            corners, sides = boxes[:, :2], boxes[:, 2:]
        window = np.maximum(1, np.rint(sides * WINDOW).astype(np.int64))
        cuts = np.zeros((len(sizes), CUT_NUMBERS), np.int64)
        cuts[:, :2] = corners + (drawn.place[:, 2:] * (sides - window + 1)).astype(np.int64)
        cuts[:, 2:4] = window
        cuts[:, 4:6] = self.image_size
        cuts[:, 8] = (drawn.place[:, 1] < 0.5) != drawn.is_flipped
        return cuts

    def _resized(self, masks: Sequence[Pixels], cuts: Cuts, drawn: OcclusionParameters) -> Tensor:
        upside_down = np.flatnonzero(drawn.place[:, 0] < 0.5)
        return change_rows(resized(masks, cuts, self.image_size), upside_down, lambda rows: rows.flip(-2))

    def apply(self, images: Tensor, fetched: Occluders) -> Tensor:
        """The images with their occluders in front."""
        if len(fetched.rows) == 0:
            return images
        if len(fetched.rows) == len(images):
            return self._cover(images, fetched)
        rows = torch.from_numpy(fetched.rows).to(images.device, non_blocking=True)
        return images.index_copy_(0, rows, self._cover(images.index_select(0, rows), fetched))

    def _cover(self, images: Tensor, fetched: Occluders) -> Tensor:
        """image * (1 - cover) + color * cover, where a texture is that product already. Overwrites the images."""
        cover = fetched.cover.to(images.device, non_blocking=True).to(torch.float32).div_(255)
        if len(fetched.textured) == 0:
            return images.lerp_(self._fill(fetched.drawn, images.device), cover)
        texture = fetched.textures.to(images.device, non_blocking=True).to(torch.float32).div_(255)
        if len(texture) == len(images):
            return images.mul_(1 - cover).add_(texture)
        rows = torch.from_numpy(fetched.textured).to(images.device, non_blocking=True)
        covered = images[rows] * (1 - cover[rows]) + texture
        return images.lerp_(self._fill(fetched.drawn, images.device), cover).index_copy_(0, rows, covered)

    def _rgb(self, drawn: OcclusionParameters) -> Numbers:
        """The color of each, float64 (k, 3) in 0..1."""
        own = self._colors[drawn.color]
        return np.where(np.isnan(own), drawn.rgb, own)

    def _fill(self, drawn: OcclusionParameters, device: torch.device) -> Tensor:
        """What L masks are filled with: float32 (k, 3, 1, 1), or (k, 3, size, size) with pink noise."""
        fill = torch.from_numpy(self._rgb(drawn).astype(np.float32)).view(-1, 3, 1, 1).to(device, non_blocking=True)
        if self.pink is None:
            return fill
        pink = self.pink = self.pink.to(device, non_blocking=True)  # it stays where the images are
        noisy = np.flatnonzero(np.isin(drawn.color, self._noisy))
        fill = fill.repeat(1, 1, self.image_size, self.image_size)

        def noise(fill: Tensor, key: Keys, is_flipped: npt.NDArray[np.bool_]) -> Tensor:
            field = fourier_field(key, pink)
            return change_rows(field, np.flatnonzero(is_flipped), lambda rows: rows.flip(-1)).expand_as(fill)

        return change_rows(fill, noisy, noise, drawn.key, drawn.is_flipped)


@cache
def covers_as_torch(compiled: Kernel) -> bool:
    """Whether the kernel gives the bits of torch here: every byte behind every opacity, filled and painted."""
    opacity, byte = torch.meshgrid(*[torch.arange(256, dtype=torch.uint8)] * 2, indexing="ij")
    images, rgb = byte.expand(2, 3, 256, 256).contiguous(), (0.3, 0.6, 0.9)
    floats, cover = (values.to(torch.float32).div_(255) for values in (images, opacity))
    filled = floats[:1].lerp(torch.tensor(rgb).view(3, 1, 1), cover.expand(1, 1, 256, 256))
    painted = floats[1:] * (1 - cover) + cover
    out, table = torch.empty_like(floats), np.zeros((2, pixels.OCCLUDER_NUMBERS), np.int64)
    try:
        with TemporaryFile() as file:
            # Opacities alone, and after them white of the same opacities.
            file.write(opacity.numpy().tobytes() + bytes([255]) * (3 * 256**2) + opacity.numpy().tobytes())
            file.flush()
            whole = (256, 256, 0, 0, 256, 256, 256, 256, 0, 0, 0, 0)
            table[:, : pixels.FILL] = [(0, file.fileno(), 0, 1, *whole), (1, file.fileno(), 256**2, 4, *whole)]
            table[:, pixels.FILL :].view(np.float64)[:] = rgb
            done = pixels.occlude(compiled, images, table, (*IMAGENET.mean, *IMAGENET.std), out)
    except OSError:
        return False
    return done == len(images) and torch.equal(out, normalize(torch.cat([filled, painted])))


def _levels(section: Occlusion, form: Form) -> Sequence[int]:
    return list(form.levels) if section.visibility == "all" else section.visibility


def _probabilities(section: Occlusion, levels: Sequence[int]) -> list[float]:
    weights = section.vis_probs or [1.0] * len(levels)
    if len(weights) != len(levels):
        raise UserError(
            f"there are {len(weights)} for {len(levels)} visibilities in "
            f"{expand_home(section.occluder_dir)}: {', '.join(map(str, levels))}",
            key="Occlusion.vis_probs",
        )
    if sum(weights) == 0:
        raise UserError("all are 0", key="Occlusion.vis_probs")
    return [section.probability * weight / sum(weights) for weight in weights]
