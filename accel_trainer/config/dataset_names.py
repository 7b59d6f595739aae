"""What a job's `dataset` can be called: `hf:` and a path or a hub id are a Hugging Face data set, all else is not.

Behind a path or an id a configuration can be named, as in `hf:owner/name:config`.
"""

from pathlib import PurePath

HF = "hf:"
_CONFIGURATION = ":"


def is_hugging_face(dataset: str) -> bool:
    """Whether a data set is opened by the datasets library."""
    return dataset.startswith(HF)


def place_of(dataset: str) -> str:
    """The path or hub id of a Hugging Face data set, with its configuration; any other name as it is."""
    return dataset.removeprefix(HF)


def last_part(dataset: str) -> str:
    """A data set without the folders, or the owner, that it is in: `name:config` of `hf:owner/name:config`."""
    return PurePath(place_of(dataset)).name if is_hugging_face(dataset) else dataset


def split_configuration(place: str) -> tuple[str, str | None]:
    """What is before the last colon of a path or hub id, and the configuration behind it; None where there is none."""
    before, colon, configuration = place.rpartition(_CONFIGURATION)
    if not (colon and before and configuration) or "/" in configuration:
        return place, None
    return before, configuration


def with_configuration(place: str, configuration: str) -> str:
    """What `dataset` names a configuration of a path or hub id with."""
    return f"{HF}{place}{_CONFIGURATION}{configuration}"
