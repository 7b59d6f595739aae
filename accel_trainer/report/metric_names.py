"""What is measured, in the words of a figure's axes: `val/acc1` is a validation accuracy in percent."""

import re

LOSS = "loss"
VALIDATION = "val"
_SPLITS = {"train": "training", VALIDATION: "validation", "val_ema": "EMA", "val_swa": "SWA"}
_SCORES = {LOSS: "loss", "acc1": "accuracy (%)", "acc5": "top-5 accuracy (%)"}
_CYCLE = re.compile(r"acc1_cycle([0-9]+)")


def split_and_score(metric: str) -> tuple[str, str]:
    """('val', 'acc1') of acc1, ('train', 'loss') of train/loss."""
    split, slash, score = metric.rpartition("/")
    return (split if slash else VALIDATION), score


def metric_of(split: str, score: str) -> str:
    """The name of a score of a split: the reverse of `split_and_score`."""
    return score if split == VALIDATION else f"{split}/{score}"


def split_name(split: str) -> str:
    """'training' of train; of a further data set its own name."""
    return _SPLITS.get(split, split.removeprefix(f"{VALIDATION}_"))


def score_label(score: str) -> str:
    """A score with its unit: 'accuracy (%)'. All scores but the loss are in percent."""
    if cycle := cycle_of(score):
        return f"accuracy of cycle {cycle} (%)"
    return _SCORES.get(score, f"{score} (%)")


def metric_label(metric: str) -> str:
    """A metric with its unit: 'validation accuracy (%)'."""
    split, score = split_and_score(metric)
    return f"{split_name(split)} {score_label(score)}"


def cycle_of(score: str) -> str | None:
    """The number of the cycle of a recurrent model that a score is of; None for other scores."""
    match = _CYCLE.fullmatch(score)
    return match[1] if match else None
