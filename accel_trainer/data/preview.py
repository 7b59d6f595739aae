"""A labeled picture of what a model sees: images in rows, their views in columns."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from accel_trainer.config import Job
from accel_trainer.data.augment.geometry import pixels_of
from accel_trainer.data.augment.mixing import Labels, MixedLabels
from accel_trainer.data.augment.spectrum import Progress
from accel_trainer.data.batch_plan import BatchPlan, TrainBatchPlanner, plan_training, possible_batch_sizes
from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.drawn_words import drawn_words
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.open import open_images
from accel_trainer.data.pipeline import training_spectrum, training_views

ROWS = 8
# Images that have one view only stand side by side.
COLUMNS_OF_SINGLE_VIEWS = 4
# Small images are enlarged by an integer factor, so that single pixels can be seen, and there is room for words below.
MIN_TILE = 96
PREVIEW_TILE = 224
MOST_LINES = 4
GAP, LINE, FONT_SIZE = 6, 17, 12
PAPER, INK, PALE_INK = (255, 255, 255), (40, 40, 40), (110, 110, 110)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def render_preview(read: ImageReader, sampling: TrainBatchPlanner, epoch: int = 1, name: str = "") -> bytes:
    """A PNG of the first training images of an epoch, from 1, as the model sees them, each with its class and what was
    drawn for it; the same bytes every time. name: of the job."""
    num_views = read.views.num_views
    columns = COLUMNS_OF_SINGLE_VIEWS if num_views == 1 else 1
    plan = next(sampling.micro_batches(epoch, rank=0))
    shown = replace(plan, indices=plan.global_indices[: ROWS * columns])
    batch = read(shown)
    tiles = pixels_of(batch.inputs.on("cpu"), read.views.statistics).reshape(-1, 3, *[read.views.image_size] * 2)
    captions = _captions(batch.labels, read.source.classes)
    if read.views.as_clip:
        captions = [caption for caption in captions for _ in range(num_views)]
    what = "frame" if read.views.as_clip else "view"
    titles = [] if num_views == 1 else [f"{what} {view}" for view in range(num_views)]
    heading = f"{name}, epoch {epoch}" if name else f"epoch {epoch}"
    notes = [", ".join(words) for words in _drawn(read, shown)]
    sheet = Sheet(heading, titles, notes, PREVIEW_TILE)
    return contact_sheet(tiles, captions, max(num_views, columns), sheet)


def _drawn(read: ImageReader, plan: BatchPlan) -> list[list[str]]:
    """What was drawn for each view of the images of a plan, in words."""
    sizes: list[tuple[int, int] | None] = []
    for index in plan.indices.tolist():
        try:
            height, width = read.source.read(index).shape[1:]
        except CorruptImage:
            sizes.append(None)
        else:
            sizes.append((height, width))
    return drawn_words(read.views, read.views.draw(read.views.draws(plan, plan.indices)), sizes)


def _captions(labels: Labels, classes: Sequence[str]) -> list[str]:
    """What each example is: its class, or the two of a mixture with their weights."""
    if not isinstance(labels, MixedLabels):
        return [classes[label] for label in labels.tolist()]
    parts = zip(labels.first.tolist(), labels.second.tolist(), labels.weight.tolist(), strict=True)
    return [f"{weight:.0%} {classes[first]}, {1 - weight:.0%} {classes[second]}" for first, second, weight in parts]


@dataclass(frozen=True)
class Sheet:
    """What is written on a sheet of tiles beside their captions: a heading above all, titles over the columns, a note
    below each tile's caption. min_tile: in pixels."""

    heading: str = ""
    titles: Sequence[str] = ()
    notes: Sequence[str] = ()
    min_tile: int = MIN_TILE


def contact_sheet(tiles: Tensor, captions: Sequence[str], columns: int, sheet: Sheet = Sheet()) -> bytes:
    """A PNG of tiles, uint8 (n, 3, size, size), row by row with a caption under each."""
    scale = max(1, -(-sheet.min_tile // tiles.shape[-1]))
    tile = tiles.shape[-1] * scale
    font = ImageFont.load_default(FONT_SIZE)
    notes = [_wrapped(note, tile, font) for note in sheet.notes] or [[] for _ in captions]
    top = LINE * max(1, bool(sheet.heading) + bool(sheet.titles))
    across, down = tile + GAP, tile + LINE * (1 + max(map(len, notes), default=0)) + GAP
    rows = -(-len(tiles) // columns)
    picture = Image.new("RGB", (columns * across + GAP, top + rows * down + GAP), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((GAP, 2), _fitted(sheet.heading, picture.width - 2 * GAP, font), INK, font)
    for column, title in enumerate(sheet.titles):
        pen.text((GAP + column * across, top - LINE + 2), title, INK, font)
    for number, (pixels, caption, lines) in enumerate(zip(tiles, captions, notes, strict=True)):
        x, y = GAP + number % columns * across, top + number // columns * down
        array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        picture.paste(Image.fromarray(array).resize((tile, tile), Image.Resampling.NEAREST), (x, y))
        pen.text((x, y + tile + 1), _fitted(caption, tile, font), INK, font)
        for line, text in enumerate(lines, start=1):
            pen.text((x, y + tile + 1 + line * LINE), text, PALE_INK, font)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """The text in lines that are not wider, MOST_LINES at most; what does not fit is left out."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) < MOST_LINES:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} …"
            break
    return [_fitted(line, width, font) for line in lines]


def _fitted(text: str, width: int, font: Font) -> str:
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
    return render_preview(reader, plan_training(resolved, images, 1), epoch, job.name or "")
