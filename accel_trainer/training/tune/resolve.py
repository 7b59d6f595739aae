"""Numbers of a job that are found before it is trained: a batch size and a learning rate that it names by words."""

import logging
import subprocess
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from accel_trainer.config import Job, ResolvedJob
from accel_trainer.config.derived import parameters
from accel_trainer.config.fields import LR_RULES
from accel_trainer.core.child_environment import helper_environment
from accel_trainer.core.errors import UserError
from accel_trainer.core.processes import Program, StopRequest
from accel_trainer.data.batch_plan import possible_batch_sizes
from accel_trainer.data.loader import Loader
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.records import read_found, write_found
from accel_trainer.training.build import Components
from accel_trainer.training.optim.optimizer import rate_for_batch
from accel_trainer.training.reporting import Reporter, plot_arguments
from accel_trainer.training.runtime.ranks import Stopped
from accel_trainer.training.tune.batch_size import FitsMemory, largest_fitting, memory_check
from accel_trainer.training.tune.lr_finder import FIRST_RATE, range_test, write_range_test
from accel_trainer.training.tune.range_verdict import Verdict, judge

log = logging.getLogger(__name__)
# A learning rate that was found with others of these does not suit the job.
RATE_FOLLOWS_FROM = parameters(lambda mark: mark.decides_rate)


@dataclass(frozen=True)
class Resolver:
    """Finds the numbers once for each run; later attempts have them from its found.json.

    make_parts: what trains such a job, with the weights it starts from; made anew for everything that is found, and
    thrown away. largest_batch_size: the most that "auto" may choose, where an attempt before was out of memory with
    more; known to rank 0.
    changed: the parameters that are no longer those of the job that the run was begun with.
    """

    run: RunFolder
    accelerator: Accelerator
    loader: Loader
    stop: StopRequest
    reporter: Reporter
    make_parts: Callable[[ResolvedJob], Components]
    largest_batch_size: int | None = None
    changed: Collection[str] = ()

    def __call__(self, job: Job) -> ResolvedJob:
        """The job with all its numbers, the same on all ranks, which call this together.

        Raises UserError where one cannot be found, and Stopped.
        """
        if self._is_first:
            self.run.check_owner()
        if self._is_first and self._was_too_large:
            self.run.discard(self.run.config)  # what depends on the size is found anew, as if the run had not begun
        if self._is_first and not self.run.has_run:
            # Of an attempt that did not get as far as a run.
            for path in (self.run.found, self.run.lr_finder, self.run.lr_finder_plot):
                self.run.discard(path)
        if job.is_resolved:
            return job.resolve()
        # Asked of rank 0 alone, which is also the first to begin the run.
        found = self._broadcast(self._found_before())
        for word in (word for word in (job.batch_size, job.lr_rule) if word in found):
            self._log(f"{word} is {found[word]:g}, as found when the run began")
        if job.with_found(found).is_resolved:
            return job.resolve(found)
        if job.batch_size == "auto" and "auto" not in found:
            found["auto"] = self._batch_size(job)
            self._write(found)  # also for who runs out of memory while a rate is looked for
        if job.lr_rule is not None and job.lr_rule not in found:
            trial = job.resolve({**found, job.lr_rule: FIRST_RATE})
            found[job.lr_rule] = self._broadcast(self._rate(trial, job.lr_rule))
        self.accelerator.free_memory()  # of what was discarded; the count of micro-batches is reset, too
        self._write(found)
        return job.resolve(found)

    def _write(self, found: Mapping[str, Any]) -> None:
        if self._is_first:
            write_found(self.run, found)

    def _found_before(self) -> dict[str, Any]:
        """Without a learning rate that was found for another batch size or optimizer."""
        found = dict(read_found(self.run)) if self.run.has_run else {}
        is_outdated = not RATE_FOLLOWS_FROM.isdisjoint(self.changed)
        return {word: number for word, number in found.items() if not (is_outdated and word in LR_RULES)}

    # -- the batch size -------------------------------------------------------------------------------------

    @property
    def _was_too_large(self) -> bool:
        """Whether what was found in an attempt before is more than fits."""
        limit, found = self.largest_batch_size, read_found(self.run).get("auto")
        return limit is not None and found is not None and found > limit and self.run.has_run

    def _batch_size(self, job: Job) -> int:
        world_size = self.accelerator.num_processes
        # The images are not known before they are open: a batch of one image for each forward pass opens them.
        smallest = job.with_placeholders(job.num_views * world_size * job.gradient_accumulation)
        parts = self.make_parts(smallest)
        limit = self._broadcast(self.largest_batch_size)
        possible = possible_batch_sizes(job, parts.images, world_size)
        sizes = [size for size in possible if limit is None or size <= limit] or possible[:1]
        size = largest_fitting(sizes, partial(self._fits_all, memory_check(smallest, parts, self.accelerator)))
        if size is None:
            raise UserError(
                f"batch_size: not even {sizes[0]} fit into memory; use a smaller image_size or model, or give a number"
            )
        if size < sizes[-1]:
            why = "do not fit into memory"
        else:
            why = "are more than the training set" if limit is None else "did not fit into memory in an earlier attempt"
        self._log(f"batch_size: {size} ({2 * size} {why})")
        return size

    def _fits_all(self, fits: FitsMemory, size: int) -> bool:
        """Whether a size fits on every rank. Raises Stopped when any was asked to stop."""
        self.reporter.update(preparing=f"finding the batch size: trying {size:,}", prepared=None)
        votes = torch.tensor([float(fits(size)), float(bool(self.stop))], device=self.accelerator.device)
        num_fitting, num_stopped = self.accelerator.reduce(votes, reduction="sum").tolist()
        if num_stopped:
            raise Stopped
        self.reporter.heartbeat()
        return bool(num_fitting == self.accelerator.num_processes)

    # -- the learning rate ----------------------------------------------------------------------------------

    def _rate(self, job: ResolvedJob, rule: str) -> float:
        if rule != "LRfinder":
            rate = rate_for_batch(rule, job.batch_size)
            self._log(f"optimizer_args.lr: {rate:g} ({rule} of batch_size {job.batch_size})")
            return rate
        return self._tested_rate(job)

    def _tested_rate(self, job: ResolvedJob) -> float:
        progress = partial(self.reporter.report_preparation, "looking for a learning rate")
        tried = range_test(job, self.make_parts(job), self.accelerator, self.loader, self.stop, progress)
        verdict = judge(tried)
        if self._is_first and tried:
            write_range_test(self.run, tried)
            self._draw(verdict)
        if verdict.rate is None:
            seen = f" (see {self.run.lr_finder_plot})" if tried else ""
            raise UserError(f"optimizer_args.lr: LRfinder {verdict.reason}{seen}; {verdict.advice}")
        doubt = "" if verdict.reason is None else f"; {verdict.reason}"
        plot = self.run.lr_finder_plot.name
        self._log(
            f"optimizer_args.lr: {verdict.rate:g} (LRfinder: the loss falls steepest; "
            f"confidence {verdict.confidence:.0%}{doubt}; see {plot})"
        )
        return verdict.rate

    def _draw(self, verdict: Verdict) -> None:
        """In another process, as all drawing is; without a picture a run is as good."""
        words = [f"--note={verdict}", *([] if verdict.rate is None else [f"--rate={verdict.rate!r}"])]
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                Program.PLOT.command(*plot_arguments(self.run), "--lr-finder", *words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=helper_environment(),
                timeout=60,
            )

    # -- across processes -----------------------------------------------------------------------------------

    @property
    def _is_first(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def _broadcast(self, value: Any) -> Any:
        return broadcast_object_list([value])[0]

    def _log(self, line: str) -> None:
        if self._is_first:
            log.info("%s", line)
