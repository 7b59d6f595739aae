"""The augmentations of a job file: Noise, Blur, Occlusion, mixing and erasing."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from accel_trainer.config.base import Probabilities, Probability, Section, WithoutNulls, one_or_list

NoiseType = Literal["gaussian", "fourier"]
NonNegative = Annotated[float, Field(ge=0)]
Percentage = Annotated[int, Field(ge=1, le=99)]
ViewIndex = Annotated[int, Field(ge=0)]
ColorChannel = Annotated[int, Field(ge=0, le=255)]
Color = Literal["random", "pink_noise"] | Annotated[list[ColorChannel], Field(min_length=3, max_length=3)]


def _one_per(values: list[Any], probs: list[float], what: str) -> None:
    if len(probs) not in (1, len(values)):
        raise ValueError(f"has {len(probs)} probs for {len(values)} {what}: give one, or one for each")


class Mixing(Section):
    """CutMix or MixUp: two images and their labels in a random proportion."""

    alpha: Annotated[float, Field(gt=0)] = 1.0
    """The proportion is drawn from Beta(alpha, alpha)."""


class Noise(Section):
    """Noise of a given strength, measured as the signal's share of signal plus noise."""

    noise_types: Annotated[list[NoiseType], one_or_list(NoiseType), Field(min_length=1)] = ["gaussian"]
    """`gaussian`, `fourier` (the images' mean amplitudes with random phases), or a list of both."""
    ssnrs: Annotated[list[Probability], one_or_list(Probability), Field(min_length=1)] = [1.0]
    """Signal-to-signal-plus-noise ratios, 0 (only noise) to 1 (none)."""
    probs: Probabilities = [1.0]
    """How often, for all or for each of `ssnrs`."""
    mean_magnitude_path: str | None = None
    """File of the mean Fourier amplitude spectrum; absent: measured from the training set."""

    @model_validator(mode="after")
    def _probs_fit(self) -> Self:
        _one_per(self.ssnrs, self.probs, "ssnrs")
        return self


class Blur(Section):
    """Gaussian blur."""

    sigmas: Annotated[list[NonNegative], one_or_list(NonNegative), Field(min_length=1)] = [1.0]
    """Standard deviations in pixels; 0 is no blur."""
    probs: Probabilities = [1.0]
    """How often, for all or for each of `sigmas`."""

    @model_validator(mode="after")
    def _probs_fit(self) -> Self:
        _one_per(self.sigmas, self.probs, "sigmas")
        return self


def _colors(value: Any) -> Any:
    """One colour or a list of colours: always a list."""
    is_rgb = isinstance(value, list) and value and all(isinstance(v, (int, float)) for v in value)
    return [value] if is_rgb or not isinstance(value, list) else value


class Occlusion(Section):
    """Something in front of the object, from folders laid out as in the Visual Occluders Dataset."""

    occluder_dir: str = "~/Datasets/VisualOccluders"
    """The folder that holds `<form>/<visibility in %>/`."""
    form: Annotated[list[str], one_or_list(str), Field(min_length=1)]
    """One form of occluder or a list."""
    probability: Probability = 1.0
    """How often an image is occluded at all."""
    visibility: Literal["all"] | Annotated[list[Percentage], one_or_list(Percentage), Field(min_length=1)] = "all"
    """How much of the image stays visible, in percent: a number, a list, or `all` there are."""
    vis_probs: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] | None = None
    """Weights over `visibility`; absent: all alike."""
    color: Annotated[
        list[Color], BeforeValidator(_colors, json_schema_input_type=Color | list[Color]), Field(min_length=1)
    ] = ["random"]
    """`random`, `[r, g, b]` (0 to 255), `pink_noise`, or a list of those; for occluders without a texture."""
    views: Annotated[list[ViewIndex], one_or_list(ViewIndex)] | None = None
    """Which views to occlude; absent: all."""
    random_resize: bool = False
    """Crop and resize the occluder at random too."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.vis_probs is not None and isinstance(self.visibility, list):
            if len(self.vis_probs) != len(self.visibility):
                raise ValueError(f"has {len(self.vis_probs)} vis_probs for {len(self.visibility)} visibilities")
            if sum(self.vis_probs) == 0:
                raise ValueError("has vis_probs that are all 0")
        return self


def _mixing(value: Any) -> Any:
    match value:
        case True:
            return {}
        case False:
            return None
        case _:
            return value


def _off_when_false(value: Any) -> Any:
    """`false` is off, but 0 is a value (and in Python they are equal)."""
    return None if value is False else value


# A field named like its type hides the type in the class body: hence these names.
NoiseOrOff = Annotated[Noise | None, WithoutNulls]
BlurOrOff = Annotated[Blur | None, WithoutNulls]
OcclusionOrOff = Annotated[Occlusion | None, WithoutNulls]
MixingOrOff = Annotated[
    Mixing | None, BeforeValidator(_mixing, json_schema_input_type=bool | Mixing | None), WithoutNulls
]
EraseWith = float | Literal["random"] | Annotated[list[float], Field(min_length=3, max_length=3)]
EraseValue = Annotated[
    EraseWith | None,
    BeforeValidator(_off_when_false, json_schema_input_type=bool | EraseWith | None),
]
