"""One image under every condition, as a picture with labels."""

import io
from collections.abc import Sequence
from itertools import groupby

from PIL import Image, ImageDraw, ImageFont

from accel_trainer.degradations.degradation import Condition, Pixels, degrade_by_each

WIDTH = 1000
GAP, LINE, FONT_SIZE = 4, 17, 13
# Below a row, so that what stands above the next one is seen to be of that.
ROW_GAP = 10
PAPER, INK, PALE_INK = (255, 255, 255), (40, 40, 40), (110, 110, 110)


def contact_sheet(image: Pixels, conditions: Sequence[Condition], image_id: str, *, width: int = WIDTH) -> Image.Image:
    """A row for each degradation, a column for each of its levels, each with its level above.

    image: uint8 (size, size, 3); it is degraded at its own size, and then shown smaller, or larger by a whole factor.
    width: of the picture, in pixels.
    """
    rows = [list(row) for _, row in groupby(conditions, key=lambda one: one.degradation.name)]
    columns = max(map(len, rows))
    tile = (width - GAP) // columns - GAP
    if tile > len(image):
        tile = len(image) * (tile // len(image))
    down = 2 * LINE + tile + ROW_GAP
    sheet = Image.new("RGB", (width, len(rows) * down), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for number, row in enumerate(rows):
        top = number * down
        degradation = row[0].degradation
        pen.text((GAP, top + 1), f"{degradation.name}: {degradation.what}", INK, font)
        for column, (condition, pixels) in enumerate(degrade_by_each(image, row, image_id)):
            left = GAP + column * (tile + GAP)
            pen.text((left, top + LINE), condition.level_text, PALE_INK, font)
            how = Image.Resampling.NEAREST if tile >= len(image) else Image.Resampling.LANCZOS
            sheet.paste(Image.fromarray(pixels).resize((tile, tile), how), (left, top + 2 * LINE))
    return sheet


def as_png(sheet: Image.Image) -> bytes:
    """The bytes of a PNG."""
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG")
    return encoded.getvalue()
