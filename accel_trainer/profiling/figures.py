"""The measured times of a training, and the bottleneck that follows from them. Without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from accel_trainer.core.spans import Phase

MODEL_PHASES = (Phase.FORWARD, Phase.BACKWARD)
# Fractions of the time above which waiting for images, or saving and validating, is the bottleneck.
WAITING_FRACTION, DOMINANT_FRACTION = 0.15, 0.5


@dataclass(frozen=True)
class Setting:
    """How the job is trained: what could be changed to make it faster."""

    device: str
    num_processes: int
    threads: int
    cores: int
    """Per process."""
    precision: str
    channels_last: bool
    compile: bool
    augments_on_device: bool


@dataclass(frozen=True)
class Profile:
    """Mean seconds in the first process, by phase.

    step: of an optimizer step; validation: of a batch; loading: of an image in one thread; saving: for which
    a save holds the training up.
    images_per_step: of all processes; images_per_batch: of a batch of the validation in this process. An image counts
    once, whatever its number of views.
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
        """Seconds of an optimizer step."""
        return sum(self.step.values())

    @property
    def images_per_process(self) -> int:
        """Images of a step on one process."""
        return self.images_per_step // self.setting.num_processes

    @property
    def images_per_s(self) -> float:
        """Throughput of the training, on all processes."""
        return self.images_per_step / self.step_s

    @property
    def images_per_s_of_model(self) -> float:
        """Throughput if no step waited for images."""
        return self.images_per_step / max(self.step_s - self.step.get(Phase.WAITING, 0.0), 1e-9)

    @property
    def images_per_s_of_threads(self) -> float:
        """Throughput of the loader's threads if they never waited, while the model computes."""
        workers = max(1, self.setting.threads) * self.setting.num_processes
        return workers / max(sum(self.loading.values()), 1e-9)

    @property
    def epoch(self) -> dict[str, float]:
        """Seconds of an epoch: its steps, the validation, and one state that is saved."""
        images = self.images_per_batch * self.setting.num_processes
        validation = self.val_images / images * sum(self.validation.values())
        return {"training": self.steps_per_epoch * self.step_s, "validation": validation, "saving": self.saving}

    def fraction(self, *phases: Phase) -> float:
        """The fraction of a step that phases take, 0 to 1."""
        return sum(self.step.get(phase, 0.0) for phase in phases) / self.step_s

    def as_row(self) -> dict[str, Any]:
        """Plain values for JSON, with the throughputs, the seconds of an epoch and the bottleneck."""
        rates = {
            "images_per_s": self.images_per_s,
            "images_per_s_of_model": self.images_per_s_of_model,
            "images_per_s_of_threads": self.images_per_s_of_threads,
        }
        return {**asdict(self), **rates, "epoch": self.epoch, "limit": limit(self)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The profile of which `as_row` gave a row."""
        own = {key: value for key, value in row.items() if key in cls.__dataclass_fields__}
        return cls(**{**own, "setting": Setting(**row["setting"])})


def limit(profile: Profile) -> str:
    """The bottleneck of the run and what may help, in one sentence."""
    epoch = profile.epoch
    whole = sum(epoch.values())
    if epoch["saving"] > DOMINANT_FRACTION * whole:
        return f"saving limits: it takes {epoch['saving'] / whole:.0%} of an epoch; {_longer_epochs(profile)}"
    if epoch["validation"] > DOMINANT_FRACTION * whole:
        fraction = epoch["validation"] / whole
        return f"the validation limits: it takes {fraction:.0%} of an epoch; fewer validation images or eval_sets help"
    if profile.fraction(Phase.WAITING) > WAITING_FRACTION:
        return _loading(profile)
    largest = max((phase for phase in profile.step if phase not in MODEL_PHASES), key=lambda name: profile.step[name])
    if profile.step[largest] <= sum(profile.step.get(phase, 0.0) for phase in MODEL_PHASES):
        return _model(profile)
    fraction, advice = profile.fraction(Phase(largest)), _ADVICE.get(Phase(largest), _DEFAULT_ADVICE)
    return f"{_PHASE_NAMES.get(Phase(largest), largest)} limits: it takes {fraction:.0%} of a step; {advice}"


def _loading(profile: Profile) -> str:
    threads, number = profile.setting.threads, profile.setting.threads * profile.setting.num_processes
    loader = f"{number} thread{'' if number == 1 else 's'} give{'s' if number == 1 else ''}" if threads else "it loads"
    return (
        f"loading limits: the step waits {profile.fraction(Phase.WAITING):.0%} of the time for images; {loader} "
        f"{profile.images_per_s_of_threads:,.0f} images/s, the model could take "
        f"{profile.images_per_s_of_model:,.0f}; {_faster_loading(profile)}"
    )


def _faster_loading(profile: Profile) -> str:
    setting, loading = profile.setting, profile.loading
    helps = []
    # More threads than cores would compete for them, with the model too if that computes on the CPU.
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
    model = f"the model limits: forward and backward take {profile.fraction(*MODEL_PHASES):.0%} of a step"
    waiting = f"images are waited for {profile.fraction(Phase.WAITING):.0%} of the time"
    return f"{model}, {waiting}; {' or '.join(helps or ['another GPU', 'a smaller image_size'])} may help"


def _longer_epochs(profile: Profile) -> str:
    return "a faster disk for model_dir helps" if profile.steps_per_epoch > 100 else "epochs are short for such a model"


_DEFAULT_ADVICE = "a larger batch_size has fewer steps"
_PHASE_NAMES = {
    Phase.COPY: "copying to the device",
    Phase.AUGMENTATION: "augmentation on the device",
    Phase.OPTIMIZER: "the optimizer",
    Phase.AVERAGES: "averaging the weights (ema)",
    Phase.METRICS: "measuring the loss and accuracies",
    Phase.REPORTING: "reporting",
    Phase.STEP: "what surrounds the model in every step",
}
_ADVICE = {
    Phase.AUGMENTATION: 'augment_on "loader" moves it to the threads of the loader',
    Phase.OPTIMIZER: 'a larger batch_size has fewer steps, and optimizer_args {"fused": true} may be faster',
    Phase.COPY: 'augment_on "device" copies bytes instead of floats',
}
