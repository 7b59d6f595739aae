"""A labeled picture of what a model sees: images in rows, their views in columns."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.data.augment.geometry import pixels_of
from accel_trainer.data.augment.mixing import Labels, MixedLabels
from accel_trainer.data.augment.spectrum import Progress
from accel_trainer.data.batch_plan import TrainBatchPlanner, plan_training, possible_batch_sizes
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.open import open_images
from accel_trainer.data.pipeline import training_spectrum, training_views

ROWS = 8
# Images that have one view only stand side by side.
COLUMNS_OF_SINGLE_VIEWS = 4
# Small images are enlarged by an integer factor, so that single pixels can be seen.
MIN_TILE = 96
GAP, LINE, FONT_SIZE = 6, 17, 12
PAPER, INK = (255, 255, 255), (40, 40, 40)


def render_preview(read: ImageReader, sampling: TrainBatchPlanner, epoch: int = 1) -> bytes:
    """A PNG of the first training images of an epoch, from 1, as the model sees them; the same bytes every time."""
    num_views = read.views.num_views
    columns = COLUMNS_OF_SINGLE_VIEWS if num_views == 1 else 1
    plan = next(sampling.micro_batches(epoch, rank=0))
    batch = read(replace(plan, indices=plan.global_indices[: ROWS * columns]))
    tiles = pixels_of(batch.inputs.on("cpu"), read.views.statistics).reshape(-1, 3, *[read.views.image_size] * 2)
    captions = _captions(batch.labels, read.source.classes)
    if read.views.as_clip:
        captions = [caption for caption in captions for _ in range(num_views)]
    what = "frame" if read.views.as_clip else "view"
    titles = [f"epoch {epoch}"] if num_views == 1 else [f"{what} {view}" for view in range(num_views)]
    return contact_sheet(tiles, captions, titles, max(num_views, columns))


def _captions(labels: Labels, classes: Sequence[str]) -> list[str]:
    """What each example is: its class, or the two of a mixture with their weights."""
    if not isinstance(labels, MixedLabels):
        return [classes[label] for label in labels.tolist()]
    parts = zip(labels.first.tolist(), labels.second.tolist(), labels.weight.tolist(), strict=True)
    return [f"{weight:.0%} {classes[first]}, {1 - weight:.0%} {classes[second]}" for first, second, weight in parts]


def contact_sheet(tiles: Tensor, captions: Sequence[str], titles: Sequence[str], columns: int) -> bytes:
    """A PNG of tiles, uint8 (n, 3, size, size), row by row with a caption under each, and titles over the columns."""
    scale = max(1, -(-MIN_TILE // tiles.shape[-1]))
    tile = tiles.shape[-1] * scale
    rows = -(-len(tiles) // columns)
    across, down = tile + GAP, tile + LINE + GAP
    sheet = Image.new("RGB", (columns * across + GAP, LINE + rows * down + GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for column, title in enumerate(titles):
        pen.text((GAP + column * across, 2), title, INK, font)
    for number, (pixels, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = GAP + number % columns * across, LINE + number // columns * down
        array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        sheet.paste(Image.fromarray(array).resize((tile, tile), Image.Resampling.NEAREST), (x, y))
        pen.text((x, y + tile + 1), _fitted(caption, tile, font), INK, font)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _fitted(text: str, width: int, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont") -> str:
    """The text, or as much of it as there is room for."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def preview(job: Job, *, epoch: int, progress: Progress = lambda done, total: None) -> bytes:
    """A picture of the first images of an epoch (PNG), as training will see them. Raises UserError."""
    images = open_images(job)
    resolved = job.with_placeholders(possible_batch_sizes(job, images, 1)[-1])
    views = training_views(job, training_spectrum(job, lambda: images.train, progress))
    reader = ImageReader(images.train, views, replace_corrupt=True)
    return render_preview(reader, plan_training(resolved, images, 1), epoch)
