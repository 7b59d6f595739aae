"""In which way the data set, and what else a run reads, is another one than that of a run, in words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.data.dataset import ImageDataset, Relabeled, Splits
from accel_trainer.data.pipeline import OCCLUDERS, SPECTRUM
from accel_trainer.data.sources.folders import ImageFolder
from accel_trainer.run.dataset_record import (
    ClassRecord,
    DataSetRecord,
    ImageChanges,
    SplitRecord,
    changed_classes,
    class_changes,
    image_changes,
)
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_classes, read_config, read_found
from accel_trainer.training.identity.listing import SplitListing
from accel_trainer.training.identity.model_source import MODEL

STARTING_WEIGHTS = "starting_weights"
"""What dataset.json calls the weights that a run starts from."""

_WORDS = {OCCLUDERS: ("level", "mask file"), MODEL: ("module", "file")}
# Listed as one image of one class, which says where it is from.
_SINGLE = {SPECTRUM: "amplitudes", STARTING_WEIGHTS: "weights"}


@dataclass(frozen=True)
class Difference:
    """split: of a data set, or what else is recorded. how: in words."""

    split: str
    how: str

    def __str__(self) -> str:
        return f"{self.split}: {self.how}"


def differences(
    before: DataSetRecord,
    now: DataSetRecord,
    listings: Mapping[str, SplitListing],
    read: Callable[[], Mapping[str, SplitListing]],
) -> Iterator[Difference]:
    """What differs. read: gives the names that were recorded."""
    for split, then in before.splits.items():
        if split not in now.splits:
            continue  # an evaluation set that the job has no more, or weights that a run needs no more
        lines = _single_lines if split in _SINGLE else _lines
        for line in lines(split, then, now.splits[split], read, listings[split]):
            yield Difference(split, line)


def _lines(
    split: str,
    then: SplitRecord,
    now: SplitRecord,
    read: Callable[[], Mapping[str, SplitListing]],
    listing: SplitListing,
) -> Iterator[str]:
    group, item = _WORDS.get(split, ("class", "image"))
    yield from class_changes(then, now).lines(group)
    if changed := changed_classes(then, now):
        yield from _image_lines(changed, read().get(split), listing, item)


def _image_lines(changed: Sequence[str], then: SplitListing | None, now: SplitListing, item: str) -> list[str]:
    """How the images of these classes have changed; then: None where their names were not kept."""
    if then is None or not set(changed) <= set(then.classes):
        return [f"other {item}s in {listed(changed, 3)}"]
    each = [image_changes(then.images(name), now.images(name), name) for name in changed]
    lines = ImageChanges(
        added=[name for one in each for name in one.added],
        removed=[name for one in each for name in one.removed],
        replaced=[name for one in each for name in one.replaced],
    ).lines(item)
    return lines or [f"the {item}s of {listed(changed, 3)} are in another order"]


def _single_lines(split: str, then: SplitRecord, now: SplitRecord, *_: object) -> Iterator[str]:
    origins = [", ".join(one.name for one in record.classes) for record in (then, now)]
    if origins[0] != origins[1]:
        yield f"{origins[0]} then, {origins[1]} now"
    elif changed_classes(then, now):
        yield f"other {_SINGLE[split]}"


def moved_unrecorded(job: Job, run: RunFolder, before: DataSetRecord | None) -> Iterator[Difference]:
    """What the job has at another path than the run's, where it is not known what was there. Raises UserError."""
    changes = job.diff(read_config(run), read_found(run))
    for key, split in (("Occlusion.occluder_dir", OCCLUDERS), ("Noise.mean_magnitude_path", SPECTRUM)):
        recorded = None if before is None else before.splits.get(split)
        if key in changes and (recorded is None or not recorded.is_complete):
            then, _ = changes[key]
            yield Difference(split, f"they were in {then!r}, and what was there is not recorded")


def since_the_first_versions(run: RunFolder, images: Splits) -> Iterator[Difference]:
    """What is different for a run of a version that recorded classes only, and had other rules for links."""
    if run.classes.exists():
        then, now = (
            SplitRecord([ClassRecord(name) for name in names]) for names in (read_classes(run), images.classes)
        )
        for line in class_changes(then, now).lines():
            yield Difference("train", line)
    if (left_out := _links_left_out(images.train)) > 0:
        yield Difference("train", f"{left_out} links to what is there anyway counted as images then")


def _links_left_out(source: ImageDataset) -> int:
    while isinstance(source, Relabeled):
        source = source.source
    return source.links_left_out if isinstance(source, ImageFolder) else 0


def refusal(job: Job, run: RunFolder, found: Sequence[Difference]) -> UserError:
    """What to say of other data than those of the run."""
    subjects = dict(_subject(job, one.split) for one in found)
    names = " and ".join(subjects.values())
    return UserError(
        f"{names} {'is' if len(subjects) == 1 else 'are'} not what the run in {run.path} began with: "
        f"{'; '.join(map(str, found))}",
        key=next(iter(subjects)),
        hint="restore it, set checkpoint to -1 to start over (the old run is kept in previous/), or allow_changes to "
        "true to go on with what is there now",
    )


def _subject(job: Job, split: str) -> tuple[str, str]:
    """The parameter that a split follows from, and what is in it."""
    match split:
        case _ if split == OCCLUDERS and job.Occlusion is not None:
            return "Occlusion.occluder_dir", repr(job.Occlusion.occluder_dir)
        case _ if split == SPECTRUM and job.Noise is not None:
            path = job.Noise.mean_magnitude_path
            return "Noise.mean_magnitude_path", "the measured spectrum" if path is None else repr(path)
        case _ if split == MODEL:
            return "architecture", f"the source of {job.architecture!r}"
        case _ if split == STARTING_WEIGHTS and job.starting_path is not None:
            return "finetune_args.starting_params", repr(str(job.starting_path))
        case _ if split == STARTING_WEIGHTS:
            return "pretrained", repr(job.pretrained)
        case _:
            return "dataset", repr(job.dataset)
