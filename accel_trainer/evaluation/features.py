"""Frozen features: what layers of a trained model give for images, in each cycle.

Images are cut into the same batches whatever the number of processes, and each batch is one process's: the bits do not
depend on how many there are, nor on where an earlier attempt has ended.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from accel_trainer.config import ResolvedJob
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import waiting_out_until_interrupted
from accel_trainer.data.batch_plan import BatchPlan
from accel_trainer.data.dataset import ImageDataset
from accel_trainer.data.loader import Batch, ImageReader
from accel_trainer.data.open import open_validation
from accel_trainer.data.pipeline import evaluation_views
from accel_trainer.data.shared_work import on_one_core
from accel_trainer.data.sources.given import images_below
from accel_trainer.evaluation.by_first import by_first
from accel_trainer.evaluation.feature_files import FeatureFiles, Format
from accel_trainer.evaluation.identity import file_digest, image_names, images_digest
from accel_trainer.evaluation.layers import Activation, activations, chosen, recording
from accel_trainer.evaluation.rows_on_disk import CORRUPT, TODO
from accel_trainer.evaluation.trained_model import trained_model, with_data_in
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import trained_classes, trained_job, trained_weights
from accel_trainer.training.runtime.accelerator import Assembly, assembly
from accel_trainer.training.runtime.kernels import in_memory_format, store_weights

Pool = Literal["none", "flatten", "mean"]
Rows = dict[str, npt.NDArray[np.float32]]
Write = Callable[[int, Rows, npt.NDArray[np.bool_]], None]
BATCH_SIZE = 64


@dataclass(frozen=True)
class Wanted:
    """Which features. layers: as `chosen` takes them; pool: "none" as the layer gives them, "flatten" (n, values),
    "mean" over all but the first dimension after the batch: over height and width of (n, channels, height, width), over
    nothing of (n, values)."""

    layers: Sequence[str]
    weights: str = "best"
    pool: Pool = "none"
    batch_size: int = BATCH_SIZE

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the features of one image, for that of what the layer gives."""
        if self.pool == "flatten":
            return (int(np.prod(shape, dtype=np.int64)),)
        return shape[:1] if self.pool == "mean" else shape

    def pooled(self, output: Tensor) -> Tensor:
        """A copy, float32 (n, *shape), contiguous."""
        if self.pool == "mean" and output.dim() > 2:
            return output.float().flatten(2).mean(2)
        copy = output.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        return copy.flatten(1) if self.pool == "flatten" else copy


class Extraction:
    """A trained model and the layers of it that are wanted, ready to be given images."""

    def __init__(self, job: ResolvedJob, model: nn.Module, wanted: Wanted, parts: Assembly) -> None:
        self.job, self.wanted, self.parts = job, wanted, parts
        self.activations = chosen(activations(model, job), wanted.layers)
        store_weights(job, model, parts.accelerator.device)
        # Not wrapped: ranks have different numbers of forward passes.
        self.model = parts.accelerator.prepare_model(model, evaluation_mode=True).eval()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one image, by the name of the layer and cycle."""
        return {activation.name: self.wanted.shape(activation.shape) for activation in self.activations}

    def reader(self, source: ImageDataset) -> ImageReader:
        """Of images as the validation of the training sees them."""
        views = evaluation_views(self.job, on_device=self.parts.augment_on_device)
        return ImageReader(source, views, replace_corrupt=False, forbid_corrupt=self.job.corrupt_images == "forbid")

    def run(
        self, reader: ImageReader, is_done: npt.NDArray[np.bool_], write: Write, *, is_one_of_several: bool
    ) -> None:
        """Features of this process's part of the images that are not done, batch by batch. Those of a corrupt image are
        NaN. is_one_of_several: of however many processes; else the bits are those that a call of the model here
        has."""
        plans = list(self._plans(len(reader.source.labels), is_done))
        for plan, batch in zip(plans, self.parts.loader.batches(reader, plans), strict=True):
            is_corrupt = np.isin(plan.indices, list(batch.corrupt))
            rows = self.empty(len(plan.indices))
            if len(batch.labels):
                for name, values in self._features(batch, is_one_of_several).items():
                    rows[name][~is_corrupt] = values
            write(int(plan.indices[0]), rows, is_corrupt)

    def _plans(self, num_images: int, is_done: npt.NDArray[np.bool_]) -> Iterator[BatchPlan]:
        accelerator = self.parts.accelerator
        starts = range(0, num_images, self.wanted.batch_size)
        for start in starts[accelerator.process_index :: accelerator.num_processes]:
            indices = np.arange(start, min(start + self.wanted.batch_size, num_images))
            if not is_done[indices].all():
                yield BatchPlan(0, 0, indices, indices)

    def empty(self, count: int) -> Rows:
        """NaN (count, *shape) of every layer."""
        return {name: np.full((count, *shape), np.nan, dtype=np.float32) for name, shape in self.shapes.items()}

    def _features(self, batch: Batch, is_one_of_several: bool) -> Rows:
        """float32 (images, *shape) of every layer."""
        found: dict[tuple[str, int], Tensor] = {}
        places = {(activation.module, activation.cycle) for activation in self.activations}

        def note(module: str, cycle: int, output: Tensor) -> None:
            if (module, cycle) in places:
                found[module, cycle] = self.wanted.pooled(output)

        accelerator = self.parts.accelerator
        images = in_memory_format(self.job, batch.inputs.on(accelerator.device))
        modules = list(dict.fromkeys(activation.module for activation in self.activations))

        def look() -> None:
            with torch.inference_mode(), accelerator.autocast(), recording(self.model, modules, note):
                self.model(images)

        # The last bits of what a CPU computes depend on the number of cores, and that on the number of processes.
        if is_one_of_several and accelerator.device.type == "cpu":
            on_one_core(look)
        else:
            look()
        return {one.name: self._checked(one, found, len(images)).cpu().numpy() for one in self.activations}

    def _checked(self, one: Activation, found: Mapping[tuple[str, int], Tensor], count: int) -> Tensor:
        tensor = found.get((one.module, one.cycle))
        if tensor is None or tuple(tensor.shape) != (count, *self.wanted.shape(one.shape)):
            there = "nothing" if tensor is None else str(tuple(tensor.shape))
            raise UserError(f"layers: {one.name} has given {there} for {count} images, and {one.shape} for one before")
        return tensor


@contextmanager
def extraction_of(run: RunFolder, wanted: Wanted) -> Iterator[Extraction]:
    """The model of a run, ready on this process's device as long as the context lasts. Raises UserError."""
    job = trained_job(run)
    path, classes = trained_weights(run, job, wanted.weights), trained_classes(run)
    with waiting_out_until_interrupted(), assembly(job, run) as parts:
        yield Extraction(job, trained_model(job, path, len(classes)), wanted, parts)


def features(run: RunFolder, source: ImageDataset, wanted: Wanted) -> Rows:
    """Features of images, float32 (images, *shape), by layer and cycle; NaN for those of corrupt images. In this
    process, in memory. Raises UserError."""
    with extraction_of(run, wanted) as extraction:
        found = extraction.empty(len(source.labels))

        def write(start: int, rows: Rows, is_corrupt: npt.NDArray[np.bool_]) -> None:
            for name, values in rows.items():
                found[name][start : start + len(values)] = values

        reader = extraction.reader(source)
        extraction.run(reader, np.zeros(len(source.labels), dtype=bool), write, is_one_of_several=False)
        reader.check_share()
    return found


@dataclass(frozen=True)
class WrittenFeatures:
    """Features in a folder. images: how many; corrupt: how many of them are corrupt, whose features are NaN; computed:
    how many were computed now, and not before; layers: shapes of one image's."""

    folder: Path
    images: int
    corrupt: int
    computed: int
    layers: Mapping[str, tuple[int, ...]]

    def as_row(self) -> dict[str, Any]:
        """All fields as plain values."""
        layers = {name: list(shape) for name, shape in self.layers.items()}
        return {**asdict(self), "folder": str(self.folder), "layers": layers}


@dataclass(frozen=True)
class Images:
    """Which images. folder: all below it; else the validation images of a data set, by default the run's own, in
    `data_root`, by default that of the job."""

    folder: Path | None = None
    dataset: str | None = None
    data_root: Path | None = None

    def open(self, run: RunFolder) -> ImageDataset:
        """Raises UserError."""
        if self.folder is not None:
            return images_below(self.folder)
        job = with_data_in(trained_job(run), self.data_root)
        return open_validation(job, self.dataset or job.dataset, trained_classes(run))


def write_features(run: RunFolder, images: Images, wanted: Wanted, out: Path, file_format: Format) -> WrittenFeatures:
    """Write features to a folder; what an earlier call, ended anywhere, has left there is gone on with.

    Every process of a launch calls it and gets the same answer. Raises UserError.
    """
    source = images.open(run)
    with extraction_of(run, wanted) as extraction:
        return written_features(run, source, extraction, out, file_format)


def written_features(
    run: RunFolder, source: ImageDataset, extraction: Extraction, out: Path, file_format: Format
) -> WrittenFeatures:
    """As `write_features`, of images and by an extraction that are there."""
    names, accelerator = image_names(source), extraction.parts.accelerator
    files = FeatureFiles(out, extraction.shapes, names, file_format)
    by_first(accelerator, lambda: files.prepare(description_of(run, source, names, extraction.wanted, extraction.job)))
    if files.is_complete:
        return WrittenFeatures(out, len(names), files.corrupt, 0, files.shapes)
    before = files.states()
    reader = extraction.reader(source)
    with files:
        extraction.run(reader, before != TODO, files.write, is_one_of_several=True)
        files.flush()
    accelerator.wait_for_everyone()
    states = files.states()
    corrupt = np.flatnonzero(states == CORRUPT)
    reader.check_share(corrupt.tolist())
    accelerator.wait_for_everyone()  # who is first takes the file away from which all have read
    by_first(accelerator, lambda: files.finish([names[index] for index in corrupt.tolist()]))
    computed = int(np.count_nonzero(before == TODO))
    return WrittenFeatures(out, len(names), len(corrupt), computed, files.shapes)


def description_of(
    run: RunFolder, source: ImageDataset, names: Sequence[str], wanted: Wanted, job: ResolvedJob
) -> dict[str, Any]:
    """What decides the features, so that others are not taken for them."""
    return {
        "architecture": job.architecture,
        "weights": wanted.weights,
        "weights_sha256": file_digest(trained_weights(run, job, wanted.weights)),
        "images_sha256": images_digest(source, names),
        "pool": wanted.pool,
        "batch_size": wanted.batch_size,
    }
