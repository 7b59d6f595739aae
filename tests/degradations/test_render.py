"""A rendered set is read back to the same pixels, and goes on where it stopped."""

import io

import numpy as np
import pytest
from helpers import dead_token
from PIL import Image

from accel_trainer.core.errors import UserError
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.sources.folders import ImageFolder
from accel_trainer.degradations.contact_sheet import as_png, contact_sheet
from accel_trainer.degradations.registry import Resources, find_degradations
from accel_trainer.degradations.render import cropped, render
from accel_trainer.degradations.stored_sets import image_ids, open_stored

SIZE = 24
NAMES = ["noise/gaussian", "blur", "imagenet-c/fog", "geirhos/contrast", "occlusion/mudSplash"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("cat/1.jpg", "cat/1.png", "dog/a/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).save(folder / name)
    return ImageFolder(folder)


@pytest.fixture(scope="module")
def conditions(tmp_path_factory):
    masks = tmp_path_factory.mktemp("masks")
    make_occluders(masks, ["mudSplash"], [20, 60], number=2, size=32, report=lambda line: None)
    return [one for found in find_degradations(NAMES, Resources(masks)) for one in found.conditions()[:4]]


def write(source, conditions, out, threads=2, size=SIZE):
    return render(source, conditions, out, size=size, crop=0.875, num_threads=threads)


def test_what_is_written_is_read_back_to_the_same_pixels(tmp_path, source, conditions):
    done = write(source, conditions, tmp_path)
    assert (done.images, done.written, done.corrupt) == (3, 3 * len(conditions), [])
    stored = {one.name: one for one in open_stored(tmp_path, ["dog", "cat"])}
    names = [one.name.replace("mudSplash", "mud_splash") for one in conditions]
    assert stored.keys() == set(names)
    # Two files of one stem keep what tells them apart.
    assert stored[names[0]].image_ids == ["cat/1.jpg.png", "cat/1.png.png", "dog/a/2.png"]
    for name, condition in zip(names, conditions, strict=True):
        for index, image_id in enumerate(image_ids(source)):
            expected = condition.degrade(cropped(source, index, SIZE, 0.875), image_id)
            assert (stored[name].images.read(index).permute(1, 2, 0).numpy() == expected).all()


def test_it_goes_on_with_what_is_missing(tmp_path, source, conditions):
    write(source, conditions, tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    gone = sorted(files)[::5]
    for path in gone:
        path.unlink()
    left = gone[0].parent / f".1.png.{dead_token()}.tmp"
    left.write_bytes(b"half")
    assert write(source, conditions, tmp_path, threads=1).written == len(gone)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == files
    assert not left.exists()
    with pytest.raises(UserError, match="another size; name another folder"):
        write(source, conditions, tmp_path, size=SIZE + 1)


def test_corrupt_images_are_in_no_condition(tmp_path, conditions):
    folder = tmp_path / "images"
    for name in ("a/1.png", "a/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(folder / name)
    (folder / "a" / "1.png").write_bytes(b"nothing")
    done = write(ImageFolder(folder), conditions, tmp_path / "out")
    assert done.images == 1
    assert done.corrupt == [str(folder / "a" / "1.png")]
    assert {path.name for path in (tmp_path / "out").rglob("*.png")} == {"2.png"}


@pytest.mark.parametrize("size", [8, 64, 300])
def test_a_sheet_has_a_row_for_each_degradation(size, conditions):
    image = np.full((size, size, 3), 200, np.uint8)
    sheet = Image.open(io.BytesIO(as_png(contact_sheet(image, conditions, "a"))))
    assert sheet.width == 1000
    # The first tile of each row is the image itself, at the neutral level.
    assert sum(sheet.getpixel((8, y)) == (200, 200, 200) for y in range(sheet.height)) >= 5 * 8
