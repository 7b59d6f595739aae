"""Is this the data set that the run began with, and the rest of what it reads?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from accel_trainer.config import Job
from accel_trainer.config.diff import Changes
from accel_trainer.core.disk_calls import never
from accel_trainer.data.dataset import ImageDataset, Splits
from accel_trainer.data.listing import Input, Labeled, MarkedOtherwise
from accel_trainer.run.dataset_record import (
    DataSetRecord,
    SplitRecord,
    changed_classes,
    digest,
    read_dataset_record,
)
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.identity.differences import (
    Difference,
    differences,
    moved_unrecorded,
    refusal,
    since_the_first_versions,
)
from accel_trainer.training.identity.listing import SplitListing, list_split, read_listings, with_marks


@dataclass(frozen=True)
class RunData:
    """What a job is trained on: images, and what else is read for it, by what dataset.json calls that."""

    images: Splits
    inputs: Mapping[str, Input]

    @property
    def sources(self) -> dict[str, Labeled]:
        """All that is recorded, by its name."""
        return {**sources_of(self.images), **self.inputs}


@dataclass(frozen=True)
class DataCheck:
    """What a start finds of the data that its run began with.

    before: what is recorded, None where nothing is. now: what is there; the contents of images are known where they
    were to be compared. listings: the same by name. differences: what is otherwise.
    """

    before: DataSetRecord | None
    now: DataSetRecord
    listings: Mapping[str, SplitListing]
    differences: Sequence[Difference] = ()

    @property
    def changes(self) -> Changes:
        """The differences as a change of the job's `dataset`: (then, now)."""
        then = None if self.before is None else self.before.summary
        return {"dataset": (then, self.now.summary)} if self.differences else {}


def list_data(job: Job, data: RunData) -> DataCheck:
    """What is there, compared with nothing."""
    listings = {split: list_split(source) for split, source in sources_of(data.images).items()}
    listings |= _list_inputs(data.inputs)
    return DataCheck(None, _record(job, listings), listings)


def _list_inputs(inputs: Mapping[str, Input]) -> dict[str, SplitListing]:
    """Also with marks, where those are known."""
    listings = {name: list_split(source) for name, source in inputs.items()}
    return {
        name: with_marks(listing, inputs[name], never) if _knows_all_marks(inputs[name]) else listing
        for name, listing in listings.items()
    }


def check_data(
    job: Job, run: RunFolder, data: RunData, is_stopped: Callable[[], bool], *, goes_on: bool = False
) -> DataCheck:
    """Compare the data with those of the run, where one has begun. Raises UserError for a damaged record, and
    Canceled.

    goes_on: whether the training goes on from what was trained before, also where no run has begun in this folder yet:
    one that went back to an earlier epoch, whose data were recorded with it.
    """
    listings = list_data(job, data).listings
    before = read_dataset_record(run) if run.has_run or goes_on else None
    if before is not None:
        listings = _as_marked(before, listings, data.sources, is_stopped)
    now = _record(job, listings)
    found: list[Difference] = []
    if before is not None:
        found += differences(before, now, listings, lambda: read_listings(run))
    elif run.has_run or goes_on:
        found += since_the_first_versions(run, data.images)
    if run.has_run:
        found += moved_unrecorded(job, run, before)
    return DataCheck(before, now, listings, found)


def refuse_other_images(job: Job, run: RunFolder, images: Splits, is_stopped: Callable[[], bool]) -> None:
    """Raises UserError, before a run is moved away for one that goes back to an epoch of it, for other images than
    its own that the job does not allow; and Canceled."""
    if job.allow_changes:
        return
    found = check_data(job, run, RunData(images, {}), is_stopped).differences
    names = sources_of(images)
    if of_images := [one for one in found if one.split in names]:
        raise refusal(job, run, of_images)


def input_differences(job: Job, run: RunFolder, inputs: Mapping[str, Input]) -> list[Difference]:
    """In what some inputs are others than those of a run; nothing where that has none recorded. Raises UserError."""
    if (before := read_dataset_record(run)) is None:
        return []
    listings = _as_marked(before, _list_inputs(inputs), inputs, never)
    return list(differences(before, _record(job, listings), listings, lambda: read_listings(run)))


def _as_marked(
    before: DataSetRecord,
    listings: Mapping[str, SplitListing],
    sources: Mapping[str, Labeled],
    is_stopped: Callable[[], bool],
) -> dict[str, SplitListing]:
    """The same with marks of contents where those are recorded, as the version that recorded them had them. Raises
    Canceled."""
    marked = dict(listings)
    for split, record in before.splits.items():
        if (listing := listings.get(split)) is None or not record.is_complete:
            continue
        if listing.marks is None or changed_classes(record, listing.record):
            marked[split] = _like(record, listing, sources[split], is_stopped)
    return marked


def _like(record: SplitRecord, listing: SplitListing, source: Labeled, is_stopped: Callable[[], bool]) -> SplitListing:
    """With marks; those of earlier versions where these are what was recorded. Raises Canceled."""
    marked = with_marks(listing, source, is_stopped)
    if isinstance(source, MarkedOtherwise) and changed_classes(record, marked.record):
        as_before = with_marks(listing, source, is_stopped, of_earlier_versions=True)
        return marked if changed_classes(record, as_before.record) else as_before
    return marked


def _record(job: Job, listings: Mapping[str, SplitListing]) -> DataSetRecord:
    return DataSetRecord(job.dataset, {split: listing.record for split, listing in listings.items()})


def digests_on_each_rank(check: DataCheck, data: RunData, reads: Callable[[], bool] | None = None) -> dict[str, str]:
    """A digest of each split, of what every process knows of it.

    reads: whether a stop is requested, where the contents of all inputs are to be read, also those that are not known
    without. Raises Canceled then.
    """
    known = {
        name: source.known_marks if reads is None else with_marks(check.listings[name], source, reads).all_marks
        for name, source in data.inputs.items()
    }
    return {
        split: digest([about.digest_of_names, *map(str, known.get(split, ()))])
        for split, about in check.now.splits.items()
    }


def _knows_all_marks(source: Input) -> bool:
    return len(source.known_marks) == len(source.labels)


def sources_of(images: Splits) -> dict[str, ImageDataset]:
    """Every split by its name."""
    return {"train": images.train, "val": images.val, **images.eval_sets}
