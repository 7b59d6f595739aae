"""What was measured of a training, and what follows from it. Without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from accel_trainer.core.spans import Phase

MODEL_PHASES = (Phase.FORWARD, Phase.BACKWARD)
# Shares from which on it is not the model that limits.
WAITING_FRACTION, DOMINANT_FRACTION = 0.15, 0.5


@dataclass(frozen=True)
class Setting:
    """How the job is trained: what could be done otherwise."""

    device: str
    num_processes: int
    threads: int
    cores: int
    """For each process."""
    precision: str
    channels_last: bool
    compile: bool
    augments_on_device: bool


@dataclass(frozen=True)
class Profile:
    """Seconds of one process, the first, in the mean: `step`, by phase, of an optimizer step; `validation` of a batch;
    `loading`, by phase, of an image in one thread; `saving` of a whole state.

    images_per_step, images_per_batch: of all processes, and of this one's batch of the validation. An image counts
    once, however many views of it there are.
    """

    job: str
    setting: Setting
    num_steps: int
    images_per_step: int
    images_per_batch: int
    step: Mapping[str, float]
    validation: Mapping[str, float]
    loading: Mapping[str, float]
    saving: float
    steps_per_epoch: int
    val_images: int

    @property
    def step_s(self) -> float:
        return sum(self.step.values())

    @property
    def images_per_process(self) -> int:
        """Of a step."""
        return self.images_per_step // self.setting.num_processes

    @property
    def images_per_s(self) -> float:
        return self.images_per_step / self.step_s

    @property
    def images_per_s_of_model(self) -> float:
        """If no image had to be waited for."""
        return self.images_per_step / max(self.step_s - self.step.get(Phase.WAITING, 0.0), 1e-9)

    @property
    def images_per_s_of_threads(self) -> float:
        """While the model computes beside them, if they never had to wait."""
        workers = max(1, self.setting.threads) * self.setting.num_processes
        return workers / max(sum(self.loading.values()), 1e-9)

    @property
    def epoch(self) -> dict[str, float]:
        """Seconds of an epoch: its steps, the validation, and one state that is saved."""
        images = self.images_per_batch * self.setting.num_processes
        validation = self.val_images / images * sum(self.validation.values())
        return {"training": self.steps_per_epoch * self.step_s, "validation": validation, "saving": self.saving}

    def fraction(self, *phases: Phase) -> float:
        """Of a step."""
        return sum(self.step.get(phase, 0.0) for phase in phases) / self.step_s

    def as_row(self) -> dict[str, Any]:
        """Plain values."""
        rates = {
            "images_per_s": self.images_per_s,
            "images_per_s_of_model": self.images_per_s_of_model,
            "images_per_s_of_threads": self.images_per_s_of_threads,
        }
        return {**asdict(self), **rates, "epoch": self.epoch, "limit": limit(self)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        own = {key: value for key, value in row.items() if key in cls.__dataclass_fields__}
        return cls(**{**own, "setting": Setting(**row["setting"])})


def limit(profile: Profile) -> str:
    """In a sentence what limits the run, and what may help."""
    epoch = profile.epoch
    whole = sum(epoch.values())
    if epoch["saving"] > DOMINANT_FRACTION * whole:
        return f"saving limits: it takes {epoch['saving'] / whole:.0%} of an epoch; {_longer_epochs(profile)}"
    if epoch["validation"] > DOMINANT_FRACTION * whole:
        share = epoch["validation"] / whole
        return f"the validation limits: it takes {share:.0%} of an epoch; fewer validation images or eval_sets help"
    if profile.fraction(Phase.WAITING) > WAITING_FRACTION:
        return _loading(profile)
    largest = max((phase for phase in profile.step if phase not in MODEL_PHASES), key=lambda name: profile.step[name])
    if profile.step[largest] <= sum(profile.step.get(phase, 0.0) for phase in MODEL_PHASES):
        return _model(profile)
    share, advice = profile.fraction(Phase(largest)), _ADVICE.get(Phase(largest), _DEFAULT_ADVICE)
    return f"{_PHASE_NAMES.get(Phase(largest), largest)} limits: it takes {share:.0%} of a step; {advice}"


def _loading(profile: Profile) -> str:
    threads, number = profile.setting.threads, profile.setting.threads * profile.setting.num_processes
    who = f"{number} thread{'' if number == 1 else 's'} give{'s' if number == 1 else ''}" if threads else "it loads"
    return (
        f"loading limits: the step waits {profile.fraction(Phase.WAITING):.0%} of the time for images; {who} "
        f"{profile.images_per_s_of_threads:,.0f} images/s, the model could take "
        f"{profile.images_per_s_of_model:,.0f}; {_faster_loading(profile)}"
    )


def _faster_loading(profile: Profile) -> str:
    setting, loading = profile.setting, profile.loading
    helps = []
    # Where the model computes on the same cores, more threads than those take each other's time.
    if setting.threads < setting.cores:
        helps.append(f"more threads (num_workers {setting.cores})")
    if loading.get(Phase.READING, 0.0) > loading.get(Phase.RENDERING, 0.0):
        helps.append("`accel-train pack`")
    elif setting.device == "cuda" and not setting.augments_on_device:
        helps.append('augment_on "device"')
    else:
        helps.append("fewer augmentations, or a smaller image_size")
    return f"{' or '.join(helps)} may help"


def _model(profile: Profile) -> str:
    setting = profile.setting
    helps = []
    if setting.device == "cuda" and setting.precision == "float32":
        helps.append("mixed_precision")
    helps += [] if setting.compile else ["compile"]
    helps += [] if setting.channels_last else ["channels_last"]
    if setting.device == "cpu":
        helps.append("a GPU")
    told = f"the model limits: forward and backward take {profile.fraction(*MODEL_PHASES):.0%} of a step"
    waits = f"images are waited for {profile.fraction(Phase.WAITING):.0%} of the time"
    return f"{told}, {waits}; {' or '.join(helps or ['another GPU', 'a smaller image_size'])} may help"


def _longer_epochs(profile: Profile) -> str:
    return "a faster disk for model_dir helps" if profile.steps_per_epoch > 100 else "epochs are short for such a model"


_DEFAULT_ADVICE = "a larger batch_size has fewer steps"
_PHASE_NAMES = {
    Phase.COPY: "the copying to the device",
    Phase.AUGMENTATION: "augmentation on the device",
    Phase.OPTIMIZER: "the optimizer",
    Phase.AVERAGES: "averaging the weights (ema)",
    Phase.METRICS: "measuring the loss and accuracies",
    Phase.REPORTING: "reporting",
    Phase.STEP: "what surrounds the model in every step",
}
_ADVICE = {
    Phase.AUGMENTATION: 'augment_on "loader" leaves it to the threads',
    Phase.OPTIMIZER: 'a larger batch_size has fewer steps, and optimizer_args {"fused": true} may be faster',
    Phase.COPY: 'augment_on "device" copies bytes instead of floats',
}
