"""Is this the data set that the run began with?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from accel_trainer.config import Job
from accel_trainer.config.diff import Changes
from accel_trainer.core.errors import UserError
from accel_trainer.core.text import listed
from accel_trainer.data.dataset import ImageDataset, Relabeled, Splits
from accel_trainer.data.sources.folders import ImageFolder
from accel_trainer.run.dataset_record import (
    ClassRecord,
    DataSetRecord,
    ImageChanges,
    SplitRecord,
    changed_classes,
    class_changes,
    image_changes,
    read_dataset_record,
)
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_classes
from accel_trainer.training.identity.listing import SplitListing, list_split, read_listings, with_marks


@dataclass(frozen=True)
class DataCheck:
    """What a start finds of the data set that its run began with.

    before: what is recorded, None where nothing is. now: what is there; the contents of images are known where they
    were to be compared. listings: the same by name. differences: in words.
    """

    before: DataSetRecord | None
    now: DataSetRecord
    listings: Mapping[str, SplitListing]
    differences: Sequence[str] = ()

    @property
    def changes(self) -> Changes:
        """The differences as a change of the job's `dataset`: (then, now)."""
        then = None if self.before is None else self.before.summary
        return {"dataset": (then, self.now.summary)} if self.differences else {}


def list_data(job: Job, images: Splits) -> DataCheck:
    """What is there, compared with nothing."""
    listings = {split: list_split(source) for split, source in sources_of(images).items()}
    now = DataSetRecord(job.dataset, {split: listing.record for split, listing in listings.items()})
    return DataCheck(None, now, listings)


def check_data(job: Job, run: RunFolder, images: Splits, is_stopped: Callable[[], bool]) -> DataCheck:
    """Compare the data set with that of the run, where one has begun. Raises UserError for a damaged record, and
    Canceled."""
    sources, listings = sources_of(images), dict(list_data(job, images).listings)
    before = read_dataset_record(run) if run.has_run else None
    if before is not None:
        for split, record in before.splits.items():
            if split in sources and record.is_complete:
                listings[split] = with_marks(listings[split], sources[split], is_stopped)
    now = DataSetRecord(job.dataset, {split: listing.record for split, listing in listings.items()})
    if before is not None:
        differences = list(_differences(before, now, listings, lambda: read_listings(run)))
    else:
        differences = list(_since_the_first_versions(run, images)) if run.has_run else []
    return DataCheck(before, now, listings, differences)


def sources_of(images: Splits) -> dict[str, ImageDataset]:
    """Every split by its name."""
    return {"train": images.train, "val": images.val, **images.eval_sets}


def refusal(job: Job, run: RunFolder, differences: Sequence[str]) -> UserError:
    """What to say of another data set than that of the run."""
    return UserError(
        f"{job.dataset!r} is not what the run in {run.path} began with: {'; '.join(differences)}",
        key="dataset",
        hint="restore it, set checkpoint to -1 to start over (the old run is kept in previous/), or allow_changes to "
        "true to go on with what is there now",
    )


def _since_the_first_versions(run: RunFolder, images: Splits) -> Iterator[str]:
    """What is different for a run of a version that recorded classes only, and had other rules for links."""
    if run.classes.exists():
        then, now = (
            SplitRecord([ClassRecord(name) for name in names]) for names in (read_classes(run), images.classes)
        )
        yield from (f"train: {line}" for line in class_changes(then, now).lines())
    if (left_out := _links_left_out(images.train)) > 0:
        yield f"train: {left_out} links to what is there anyway counted as images then"


def _links_left_out(source: ImageDataset) -> int:
    while isinstance(source, Relabeled):
        source = source.source
    return source.links_left_out if isinstance(source, ImageFolder) else 0


def _differences(
    before: DataSetRecord,
    now: DataSetRecord,
    listings: Mapping[str, SplitListing],
    read: Callable[[], Mapping[str, SplitListing]],
) -> Iterator[str]:
    for split, then in before.splits.items():
        if split not in now.splits:
            continue  # an evaluation set that the job has no more
        yield from (f"{split}: {line}" for line in class_changes(then, now.splits[split]).lines())
        if changed := changed_classes(then, now.splits[split]):
            yield from (f"{split}: {line}" for line in _image_lines(changed, read().get(split), listings[split]))


def _image_lines(changed: Sequence[str], then: SplitListing | None, now: SplitListing) -> list[str]:
    """How the images of these classes have changed; then: None where their names were not kept."""
    if then is None or not set(changed) <= set(then.classes):
        return [f"other images in {listed(changed, 3)}"]
    each = [image_changes(then.images(name), now.images(name), name) for name in changed]
    lines = ImageChanges(
        added=[name for one in each for name in one.added],
        removed=[name for one in each for name in one.removed],
        replaced=[name for one in each for name in one.replaced],
    ).lines()
    return lines or [f"the images of {listed(changed, 3)} are in another order"]
