"""Occluders in front of the images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.config.augmentations import Occlusion
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_home
from accel_trainer.data.augment.effect import change_rows
from accel_trainer.data.augment.geometry import CROP_NUMBERS, crop_box, flipped_rows, resize, to_uint8
from accel_trainer.data.augment.noise import fourier_field, pink_spectrum
from accel_trainer.data.occluders.bank import Form, open_forms
from accel_trainer.data.occluders.masks import Masks
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
        self._colors = [None if isinstance(color, str) else np.array(color) / 255 for color in section.color]
        self._noisy = np.flatnonzero([color == "pink_noise" for color in section.color])
        self._no_cover, self._no_texture = (
            torch.empty(0, channels, image_size, image_size, dtype=torch.uint8) for channels in (1, 3)
        )
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

    def fetch(self, parameters: OcclusionParameters) -> Occluders:
        """The masks of the rows that have one, at the size of the images. Raises UserError for an unreadable PNG."""
        rows = np.flatnonzero(parameters.masks >= 0)
        drawn = parameters if len(rows) == len(parameters.masks) else parameters[rows]
        masks = [self._mask(drawn, row) for row in range(len(rows))]
        textured = [row for row, mask in enumerate(masks) if len(mask) == 4]
        return Occluders(
            rows=rows,
            cover=_stacked([mask[-1:] for mask in masks] if textured else masks, self._no_cover),
            textured=np.array(textured, dtype=np.int64),
            textures=_stacked([masks[row][:3] for row in textured], self._no_texture),
            drawn=drawn,
        )

    def _mask(self, drawn: OcclusionParameters, row: int) -> Tensor:
        """uint8 (1 or 4, size, size), cropped, resized and flipped; colors times opacity."""
        # Cut by numpy: torch gives the interpreter's lock to another thread for every slice, and waits to get it back.
        mask = self.all_masks[int(drawn.masks[row])].read(int(drawn.item[row])).numpy()
        if self.section.random_resize:
            top, left, height, width = crop_box(mask.shape[-2], mask.shape[-1], drawn.crop[row], RESIZE_SCALE)
            mask = mask[:, top : top + height, left : left + width]
        down, across, from_top, from_left = drawn.place[row].tolist()
        height, width = (max(1, round(side * WINDOW)) for side in mask.shape[-2:])
        top, left = int(from_top * (mask.shape[-2] - height + 1)), int(from_left * (mask.shape[-1] - width + 1))
        window = _by_opacity(torch.from_numpy(mask[:, top : top + height, left : left + width]))
        resized = resize(window, (self.image_size, self.image_size))
        flips = ((-2, down < 0.5), (-1, (across < 0.5) != drawn.is_flipped[row]))
        axes = [axis for axis, is_flipped in flips if is_flipped]
        return resized.flip(axes) if axes else resized

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

    def _fill(self, drawn: OcclusionParameters, device: torch.device) -> Tensor:
        """What L masks are filled with: float32 (k, 3, 1, 1), or (k, 3, size, size) with pink noise."""
        rgb = np.empty((len(drawn.color), 3), np.float32)
        for row, color in enumerate(drawn.color.tolist()):
            own = self._colors[color]
            rgb[row] = drawn.rgb[row] if own is None else own
        fill = torch.from_numpy(rgb).view(-1, 3, 1, 1).to(device, non_blocking=True)
        if self.pink is None:
            return fill
        pink = self.pink = self.pink.to(device, non_blocking=True)  # it stays where the images are
        noisy = np.flatnonzero(np.isin(drawn.color, self._noisy))
        fill = fill.repeat(1, 1, self.image_size, self.image_size)

        def noise(fill: Tensor, key: Keys, is_flipped: npt.NDArray[np.bool_]) -> Tensor:
            field = fourier_field(key, pink)
            return change_rows(field, np.flatnonzero(is_flipped), lambda rows: rows.flip(-1)).expand_as(fill)

        return change_rows(fill, noisy, noise, drawn.key, drawn.is_flipped)


def _by_opacity(mask: Tensor) -> Tensor:
    """RGBA with its colors times its opacity: resizing would else mix in the color of what cannot be seen."""
    if len(mask) == 1:
        return mask
    colors = mask[:3].to(torch.float32).mul_(mask[3:].to(torch.float32).div_(255)).round_()
    return torch.cat([to_uint8(colors), mask[3:]])


def _stacked(parts: Sequence[Tensor], nothing: Tensor) -> Tensor:
    """One after the other; `nothing` where there is none."""
    if not parts:
        return nothing
    return parts[0][None] if len(parts) == 1 else torch.stack(list(parts))


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
