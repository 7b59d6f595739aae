"""Records what a run begins with, without holding up its first step."""

import logging
import threading

from accel_trainer.core.errors import AccelTrainError
from accel_trainer.core.outage import StoppedWaiting
from accel_trainer.data.listing import Canceled
from accel_trainer.run.dataset_record import write_dataset_record
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.identity.check import DataCheck, RunData
from accel_trainer.training.identity.listing import SplitListing, with_marks, write_listings

log = logging.getLogger(__name__)

# How long the first step may wait for the sizes of all files. Where it takes longer, they are recorded when they are
# known, and the training goes on meanwhile.
WAIT_S = 0.5


class DataRecorder:
    """Writes what a run begins with: classes, counts and names at once, the contents as soon as they are known."""

    def __init__(self, run: RunFolder, data: RunData, check: DataCheck) -> None:
        self._run, self._sources, self._check = run, data.sources, check
        self._is_new = check.before is None or bool(check.differences)
        self._known: dict[str, SplitListing] = {}
        self._writing = threading.Lock()
        self._is_canceled = threading.Event()
        self._thread = threading.Thread(target=self._complete, name="data set", daemon=True)

    def write(self) -> None:
        """Write what is not known yet. Raises OSError."""
        if not self._is_new and self._is_complete():
            return
        if self._is_new:
            self._run.discard(self._run.dataset_listing)  # of another data set
        self._thread.start()
        self._thread.join(WAIT_S)
        with self._writing:
            if len(self._known) < len(self._sources):
                self._write_record()

    def close(self) -> None:
        """Give up what is still being looked up."""
        self._is_canceled.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _is_complete(self) -> bool:
        before = self._check.before
        if before is None or not self._run.dataset_listing.exists():
            return False
        return all(split in before.splits and before.splits[split].is_complete for split in self._sources)

    def _complete(self) -> None:
        """In a thread of its own."""
        try:
            known: dict[str, SplitListing] = {}
            for split, source in self._sources.items():
                listing = self._check.listings[split]
                is_known = listing.marks is not None
                known[split] = listing if is_known else with_marks(listing, source, self._is_canceled.is_set)
            with self._writing:
                self._known = known
                self._write_record()
            write_listings(self._run, known)
        except (Canceled, StoppedWaiting):
            pass
        except (AccelTrainError, OSError) as error:
            log.warning("what the images, and other inputs, are is not recorded: %s", error)

    def _write_record(self) -> None:
        before, now = self._check.before, self._check.now
        others = {} if before is None or self._is_new else before.splits
        known = {split: listing.record for split, listing in self._known.items()}
        write_dataset_record(self._run, now.with_splits({**others, **now.splits, **known}))
