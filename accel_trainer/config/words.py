"""What words in a job file stand for, where they are more than names."""

import re
from pathlib import PurePath

TRANSFORM_BASES = ("default", "contrastive", "none")
TRANSFORM_MODIFIERS = ("weak-resize", "no-blur")
TRANSFORM_POLICIES = ("randaugment", "trivialaugment", "augmix")
LEARNING_RATE_WORDS = ("batch_linear", "batch_nonlinear", "LRfinder")
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")


def transform_words(transform_type: str) -> list[str]:
    """The words of a transform_type, the base first: 'contrastive-no-blur' is ['contrastive', 'no-blur']."""
    words, rest = [], transform_type
    for word in (*TRANSFORM_MODIFIERS, *TRANSFORM_POLICIES):
        if f"-{word}-" in f"{rest}-":
            rest = f"{rest}-".replace(f"-{word}-", "-", 1).removesuffix("-")
            words.append(word)
    return [rest, *words]


def eval_split(dataset: str) -> str:
    """What performance.csv calls a further data set: `val_` and its name, or the last part of that of an 'hf:' set."""
    name = PurePath(dataset).name if dataset.startswith("hf:") else dataset
    return "val_" + re.sub(r"[^\w.-]+", "_", name.removeprefix("hf:"))


def is_weights_path(word: str) -> bool:
    """Whether a word can only be that of a file or folder, not of published weights or of a job."""
    return "/" in word or word.startswith("~") or PurePath(word).suffix.lower() in WEIGHT_SUFFIXES
