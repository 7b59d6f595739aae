"""What is known of a job without training it: what is doubted of a job is found in this and in the job."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accel_trainer.config.job import Job
from accel_trainer.core.errors import Problem


@dataclass(frozen=True)
class Known:
    """What is known of a job without training it; None where it is not known.

    steps_per_epoch: optimizer steps. cycles: of how many cycles the model gives logits or embeddings. rates: learning
    rates at equal distances over the training, as far as they do not depend on a metric; by whatever unit. on_cpu:
    whether a launch here would train on the CPU. without_order: what a deterministic job has that no kernel on a GPU
    computes with the same bits every time, in words.
    """

    num_classes: int | None = None
    train_images: int | None = None
    steps_per_epoch: int | None = None
    cycles: int | None = None
    rates: Sequence[float] | None = None
    on_cpu: bool | None = None
    without_order: Sequence[str] = ()

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> "Known":
        """What the summary of a check says."""
        names = ("classes", "train_images", "steps_per_epoch", "cycles", *ONLY_TO_DOUBT)
        return cls(*(summary[name] for name in names))


# What the summary of a check has for this alone: nobody is shown it.
ONLY_TO_DOUBT = ("rates", "on_cpu", "without_order")


Doubt = Callable[[Job, Known], Iterator[Problem]]


def number_in(args: dict[str, Any], name: str) -> float | None:
    """A number among arguments; None where there is none of that name."""
    value = args.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
