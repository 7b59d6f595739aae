"""How far a run is, in words and shares; from its status alone."""

from dataclasses import dataclass

from accel_trainer.core.text import duration
from accel_trainer.run.status import RunState, Status


@dataclass(frozen=True)
class Doing:
    """What a run does now, and how much of that is done; None where that is not known."""

    what: str
    share: float | None


def doing_of(status: Status) -> Doing | None:
    """What a run does by its status: an epoch, a validation, or what it prepares; None where the status says none."""
    in_epoch = bool(status.steps_per_epoch and status.num_epochs)
    if status.preparing is not None:
        of_epoch = f" in epoch {status.epoch}/{status.num_epochs}" if in_epoch and status.epoch else ""
        return Doing(f"{status.preparing}{of_epoch}", status.prepared)
    if status.state is RunState.MEASURING:
        if not status.num_images:
            return Doing("opening the images", None)
        return Doing(f"{status.images:,}/{status.num_images:,} images", status.images / status.num_images)
    if status.state is not RunState.TRAINING or not in_epoch:
        return None
    return Doing(f"epoch {max(1, status.epoch)}/{status.num_epochs}", status.step / status.steps_per_epoch)


def share_of_run(status: Status) -> float | None:
    """How much of all epochs, or of all that is measured, is done; None before the first step."""
    if status.state is RunState.MEASURING:
        return status.images / status.num_images if status.num_images else None
    if not status.num_epochs or not status.steps_per_epoch:
        return None
    steps = max(status.epoch - 1, 0) * status.steps_per_epoch + status.step
    return min(1.0, steps / (status.num_epochs * status.steps_per_epoch))


def scores_of(status: Status) -> str:
    """'loss 0.1234  acc1 98.7%'; '' before the first step."""
    parts = [] if status.loss is None else [f"loss {status.loss:.4f}"]
    parts += [] if status.score is None else [f"{status.score_name} {status.score:.1f}%"]
    return "  ".join(parts)


def speed_of(status: Status) -> str:
    """'1,234 images/s  lr 0.01'; '' before the first step."""
    parts = [] if status.images_per_s is None else [f"{status.images_per_s:,.0f} images/s"]
    parts += [] if status.lr is None else [f"lr {status.lr:.3g}"]
    return "  ".join(parts)


def line_of_status(status: Status) -> str | None:
    """All of it in a line, for who reads no bars; None where the status says nothing."""
    if (doing := doing_of(status)) is None:
        return None
    share = "" if doing.share is None else f" {doing.share:.0%}"
    whole = share_of_run(status)
    run = "" if whole is None else f"run {whole:.0%}"
    left = "" if status.eta_s is None else f"{duration(status.eta_s)} left"
    return ", ".join(filter(None, (f"{doing.what}{share}", run, scores_of(status), speed_of(status), left)))
