"""The rules of training: a version for what a job file means, and the table of what has changed from one to the next.

A run goes on by the rules that it was begun by, which its config.json records as `rules`; without that record they are
rules 1. To change what a job means, add a line to CHANGES, and let what has changed ask the job for its `rules`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accel_trainer.config.derived import JobParameters

# The version that new runs are begun by.
RULES = 3
# The one of runs from before there was a record.
FIRST_RULES = 1
# What trains by the rules alone that the newest version has left behind.
OLD_VERSIONS = {1: "0.2", 2: "of November 2026"}
# Architectures whose layers began with Xavier uniform weights and biases of 0 by rules 1.
XAVIER_BY_FIRST_RULES = ("cornet_r", "cornet_rt")


@dataclass(frozen=True)
class Change:
    """A job means something else by the rules `since` than by those before.

    what: a clause for people: "occluders come before the flip, not after the colors". concerns: whether a job trains
    otherwise for it, by what the job says. is_kept: whether jobs are still trained by the rules before; if not, a run
    that it concerns cannot go on.
    """

    since: int
    what: str
    concerns: Callable[["JobParameters"], bool]
    is_kept: bool = True


CHANGES: tuple[Change, ...] = (
    Change(
        since=2,
        what="all images of a batch have one mixture by cutmix or mixup, unless the job says per image",
        concerns=lambda job: (
            any(mixing is not None and mixing.per == "batch" for mixing in (job.cutmix, job.mixup))
            and not (job.batch_dependence and (job.view_dependence or job.views_per_image == 1))
        ),
    ),
    Change(
        since=2,
        what="CORnet-R and -RT start with the weights that torch gives layers, not with Xavier's",
        concerns=lambda job: job.architecture in XAVIER_BY_FIRST_RULES,
    ),
    Change(
        since=2,
        what="an occluder is flipped, colored and blurred with its image",
        concerns=lambda job: job.Occlusion is not None and job.Occlusion.occludes and job.transform_type != "none",
    ),
    Change(
        since=2,
        what="pink noise that fills occluders is gray: one spectrum for the three channels",
        concerns=lambda job: (
            job.Occlusion is not None and job.Occlusion.occludes and "pink_noise" in job.Occlusion.color
        ),
    ),
    Change(
        since=2,
        what="occlusion, blur and noise that never come are left out, with other last bits of normalized pixels",
        concerns=lambda job: _has_idle_steps_alone(job),
    ),
    Change(
        since=2,
        what="erasing comes after normalization, with its value in normalized units",
        concerns=lambda job: job.randomerase is not None,
    ),
    Change(
        since=2,
        what="optimizer_args of SGD that leave out lr, momentum or weight_decay have the default's, not torch's",
        concerns=lambda job: job.rules < 2 and _leaves_sgd_open(getattr(job, "given", {})),
    ),
    Change(
        since=3,
        what="on a CUDA GPU images and convolutions lie channels last in memory, unless the job says otherwise",
        concerns=lambda job: job.channels_last is None and not job.video,
    ),
    Change(
        since=3,
        what="with channels_last, convolutions of one pixel lie so too, for which other kernels may be taken",
        concerns=lambda job: job.channels_last is True,
    ),
)
"""What has changed, oldest first."""


# torch's own, of what the default job has otherwise.
_TORCH_SGD = {"lr": 0.001, "momentum": 0, "weight_decay": 0}


def _has_idle_steps_alone(job: "JobParameters") -> bool:
    """Whether occlusion, blur or noise of a probability of 0 would be all that is done to pixels from 0 to 1."""
    comes = [
        is_drawn
        for section, is_drawn in (
            (job.Occlusion, job.Occlusion is not None and job.Occlusion.occludes),
            (job.Blur, job.Blur is not None and job.Blur.is_drawn),
            (job.Noise, job.Noise is not None and job.Noise.is_drawn),
        )
        if section is not None
    ]
    return bool(comes) and not any(comes) and not job.transform_type.startswith("contrastive")


def _leaves_sgd_open(given: Mapping[str, Any]) -> bool:
    args = given.get("optimizer_args")
    return given.get("optimizer") in (None, "SGD") and isinstance(args, dict) and not _TORCH_SGD.keys() <= args.keys()


def old_defaults(given: Mapping[str, Any], rules: int) -> dict[str, Any]:
    """What a job or a config.json means by older rules where it leaves something open that the newest rules fill in
    otherwise: the same, with that filled in."""
    filled = dict(given)
    if rules < 2:
        for key in ("cutmix", "mixup"):
            match given.get(key):
                case True:
                    filled[key] = {"per": "image"}
                case dict() as mixing if mixing.get("per") is None:
                    filled[key] = {**mixing, "per": "image"}
        if _leaves_sgd_open(given):
            filled["optimizer_args"] = {**_TORCH_SGD, **given["optimizer_args"]}
    if rules < 3 and given.get("channels_last") is None:
        filled["channels_last"] = False
    return filled


def changes_for(
    job: "JobParameters", before: int, now: int = RULES, changes: Sequence[Change] | None = None
) -> list[Change]:
    """What of a job's meaning has changed between two versions of the rules, in either direction."""
    first, last = sorted((before, now))
    table = CHANGES if changes is None else changes
    return [change for change in table if first < change.since <= last and change.concerns(job)]


def describe(changes: Sequence[Change]) -> str:
    """The changes in one clause."""
    return "; ".join(change.what for change in changes)
