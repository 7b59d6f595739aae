"""The augmentations of a job file: Noise, Blur, Occlusion, mixing and erasing."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from accel_trainer.config.fields import Probabilities, Probability, Section, WithoutNulls, one_or_list, refuse_all
from accel_trainer.config.marks import DATA, PathKind

NoiseType = Literal["gaussian", "fourier"]
Sigma = Annotated[float, Field(ge=0, le=10_000)]
ViewIndex = Annotated[int, Field(ge=0)]
ColorChannel = Annotated[int, Field(ge=0, le=255)]
Color = Literal["random", "pink_noise"] | Annotated[list[ColorChannel], Field(min_length=3, max_length=3)]


def _one_per(values: list[Any], probs: list[float], what: str) -> str | None:
    fits = len(probs) in (1, len(values))
    return None if fits else f"has {len(probs)} probs for {len(values)} {what}: give one, or one for each"


def prob_of_each(num_values: int, probs: list[float]) -> list[float]:
    """How often each of some values is drawn: one probability is divided among them, several are their own."""
    return [probs[0] / num_values] * num_values if len(probs) == 1 else list(probs)


def _any_drawn(does_something: list[bool], probs: list[float]) -> bool:
    """Whether any value that does something is ever drawn."""
    drawn = prob_of_each(len(does_something), probs)
    return any(does and prob > 0 for does, prob in zip(does_something, drawn, strict=True))


def _exceed_one(probs: list[float]) -> bool:
    return len(probs) > 1 and sum(probs) > 1 + 1e-9


class Mixing(Section):
    """CutMix or MixUp: two images and their labels in a random proportion."""

    alpha: Annotated[float, Field(gt=0), DATA] = 1.0
    """The proportion is drawn from Beta(alpha, alpha)."""
    per: Annotated[Literal["batch", "image"], DATA] = "batch"
    """Whether all images of a global batch have one proportion and one box, as torchvision's CutMix and MixUp have it,
    or each its own."""


class Noise(Section):
    """Noise of a given strength, measured as the fraction of the signal in signal plus noise."""

    noise_types: Annotated[list[NoiseType], one_or_list(NoiseType), Field(min_length=1), DATA] = ["gaussian"]
    """`gaussian`, `fourier` (the images' mean amplitudes with random phases), or a list of both."""
    ssnrs: Annotated[list[Probability], one_or_list(Probability), Field(min_length=1), DATA] = [1.0]
    """Signal-to-signal-plus-noise ratios, 0 (only noise) to 1 (none)."""
    probs: Annotated[Probabilities, DATA] = [1.0]
    """How often there is noise at all, the ratio then being any of `ssnrs`; or how often each of them is drawn."""
    fourier_part: Annotated[Literal["real", "modulus"], DATA] = "real"
    """What of the noise's complex field is seen, for `fourier`: `real`, with phases that leave no other part; or its
    `modulus`, with phases of all frequencies for themselves, as in the code of Coggan and Tong."""
    mean_magnitude_path: Annotated[str | None, DATA.but(path=PathKind.PATH, may_move=True)] = None
    """File of the mean Fourier amplitude spectrum, for `fourier`; absent: measured from the training set."""

    @model_validator(mode="after")
    def _probs_fit(self) -> Self:
        too_often = f"has probs that add up to {sum(self.probs):g}: each is how often that ssnr is drawn"
        refuse_all([_one_per(self.ssnrs, self.probs, "ssnrs"), too_often if _exceed_one(self.probs) else None])
        return self

    @property
    def comes(self) -> bool:
        """Whether any image gets noise."""
        return _any_drawn([ssnr < 1 for ssnr in self.ssnrs], self.probs)

    @property
    def is_drawn(self) -> bool:
        """Whether it is drawn for any image, if only noise that leaves the image as it is."""
        return any(self.probs)

    @property
    def needs_spectrum(self) -> bool:
        """Whether any noise is made of the images' mean amplitudes."""
        return self.is_drawn and "fourier" in self.noise_types


class Blur(Section):
    """Gaussian blur."""

    sigmas: Annotated[list[Sigma], one_or_list(Sigma), Field(min_length=1), DATA] = [1.0]
    """Standard deviations in pixels; 0 is no blur. In a video, those of the frames."""
    probs: Annotated[Probabilities, DATA] = [1.0]
    """How often there is blur at all, by any of `sigmas`; or how often each of them is drawn. In a video, how often
    each frame has its blur."""

    @model_validator(mode="after")
    def _probs_fit(self) -> Self:
        refuse_all([_one_per(self.sigmas, self.probs, "sigmas")])
        return self

    @property
    def comes(self) -> bool:
        """Whether any image is blurred."""
        return _any_drawn([sigma > 0 for sigma in self.sigmas], self.probs)

    @property
    def is_drawn(self) -> bool:
        """Whether it is drawn for any image, if only a blur of 0."""
        return any(self.probs)

    @property
    def probs_exceed_one(self) -> bool:
        """Whether the sigmas cannot be drawn as often as `probs` have it; the frames of a video can."""
        return _exceed_one(self.probs)


def _colors(value: Any) -> Any:
    """One color or a list of colors: always a list."""
    is_rgb = isinstance(value, list) and value and all(isinstance(v, (int, float)) for v in value)
    return [value] if is_rgb or not isinstance(value, list) else value


def _percentages(value: Any) -> Any:
    """Fractions of 1 (0.4, 1.0) become percentages (40, 100); what is neither is left to be refused."""
    match value:
        case list():
            return [_percentages(part) for part in value]
        case bool():
            return value
        case int() | float() if 0 < value <= 1:
            return round(100 * value)
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


# From 2: 1 is the fraction that is all.
Percentage = Annotated[int, Field(ge=2, le=100)]
Visibility = Literal["all"] | Annotated[list[Percentage], one_or_list(Percentage), Field(min_length=1)]
_Fraction = Annotated[float, Field(gt=0, le=100)]


class Occlusion(Section):
    """Something in front of the object, from folders laid out as in the Visual Occluders Dataset."""

    occluder_dir: Annotated[str, DATA.but(path=PathKind.PATH, may_move=True)] = "~/Datasets/VisualOccludersDataset"
    """The folder that holds `<form>/<visibility in %>/`."""
    form: Annotated[list[str], one_or_list(str), Field(min_length=1), DATA]
    """One form of occluder or a list."""
    probability: Annotated[Probability, DATA] = 1.0
    """How often an image is occluded at all."""
    visibility: Annotated[
        Visibility,
        BeforeValidator(_percentages, json_schema_input_type=Literal["all"] | _Fraction | list[_Fraction]),
        DATA,
    ] = "all"
    """How much of the image stays visible: a number, a list, or `all` there are. In percent (40) or as a fraction
    (0.4); 1.0 and 100 leave the image as it is."""
    vis_probs: Annotated[Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] | None, DATA] = None
    """Weights over `visibility`; absent: all alike."""
    color: Annotated[
        list[Color], BeforeValidator(_colors, json_schema_input_type=Color | list[Color]), Field(min_length=1), DATA
    ] = ["random"]
    """`random`, `[r, g, b]` (0 to 255), `pink_noise`, or a list of those; for occluders without a texture."""
    views: Annotated[Annotated[list[ViewIndex], one_or_list(ViewIndex)] | None, DATA] = None
    """Which views to occlude, from 0; absent: all."""
    random_resize: Annotated[bool, DATA] = False
    """Crop 80 to 100% of the occluder's area at random too."""

    @property
    def wanted_levels(self) -> list[int] | None:
        """The visibilities, in percent, of which masks are drawn at all: without 100, which hides nothing, and those
        of weight 0. None: all that there are."""
        if self.visibility == "all":
            return None
        weights = self.vis_probs or [1.0] * len(self.visibility)
        return sorted({level for level, weight in zip(self.visibility, weights, strict=True) if weight and level < 100})

    @property
    def occludes(self) -> bool:
        """Whether any image gets an occluder; where not, no masks are needed."""
        return self.probability > 0 and self.wanted_levels != []

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.vis_probs is not None and isinstance(self.visibility, list):
            fits = len(self.vis_probs) == len(self.visibility)
            number = f"has {len(self.vis_probs)} vis_probs for {len(self.visibility)} visibilities: give one for each"
            refuse_all([None if fits else number, None if any(self.vis_probs) else "has vis_probs that are all 0"])
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
# In standard deviations of the images: what is in 0..255 is not meant in them.
NormalizedValue = Annotated[float, Field(ge=-100, le=100)]
EraseWith = NormalizedValue | Literal["random"] | Annotated[list[NormalizedValue], Field(min_length=3, max_length=3)]
EraseValue = Annotated[
    EraseWith | None,
    BeforeValidator(_off_when_false, json_schema_input_type=bool | EraseWith | None),
]
