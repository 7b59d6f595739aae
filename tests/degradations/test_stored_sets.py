"""Published sets of degraded images are read as they are laid out."""

import numpy as np
import pytest
import torch
from PIL import Image

from accel_trainer.core.errors import UserError
from accel_trainer.degradations.stored_names import columns_of
from accel_trainer.degradations.stored_sets import open_stored

CLASSES = ["cat", "dog"]


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


def save_condition(folder, value=0, classes=CLASSES):
    for label, name in enumerate(classes):
        save(folder / name / "1.png", value + 100 * label)
        save(folder / name / "2.png", value + 100 * label + 1)


def arrays(folder, names=("fog", "snow"), count=6, repeated=True):
    folder.mkdir()
    labels = np.arange(count) % 2
    np.save(folder / "labels.npy", np.tile(labels, 5) if repeated else labels)
    for place, name in enumerate(names):
        images = np.arange(5 * count, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 4, 4, 3), np.uint8)
        np.save(folder / f"{name}.npy", images + np.uint8(100 * place))


def move_dogs(folder):
    for name in ("1.png", "2.png"):
        (folder / "dog" / name).rename(folder / "cat" / f"x{name}")


def test_corruptions_and_severities_are_read_as_published(tmp_path):
    for corruption in ("fog", "snow"):
        for severity in range(1, 6):
            save_condition(tmp_path / corruption / str(severity), severity)
    found = open_stored(tmp_path, ["dog", "cat"])
    assert [one.name for one in found] == [
        f"imagenet-c/{name}/{level}" for name in ("fog", "snow") for level in range(1, 6)
    ]
    third = found[2]
    assert third.columns == {"degradation": "imagenet-c/fog", "level": "3"}
    # Classes are those of the run, by name.
    assert dict(zip(third.image_ids, third.images.labels.tolist(), strict=True)) == {
        "cat/1.png": 1, "cat/2.png": 1, "dog/1.png": 0, "dog/2.png": 0,
    }  # fmt: skip
    place = third.image_ids.index("dog/2.png")
    assert (third.images.read(place) == 104).all()
    assert all(one.image_ids == third.image_ids for one in found)


def test_levels_are_in_the_order_of_numbers_at_any_depth(tmp_path):
    for level in ("none", "10", "9", "0.5"):
        save_condition(tmp_path / "lab" / "tilt" / level)
    assert [one.columns["level"] for one in open_stored(tmp_path)] == ["none", "0.5", "9", "10"]
    assert {one.columns["degradation"] for one in open_stored(tmp_path)} == {"lab/tilt"}
    (alone,) = open_stored(tmp_path / "lab" / "tilt" / "9")
    assert alone.columns == {"degradation": "9", "level": ""}


def test_images_may_be_deeper_in_folders_of_known_classes(tmp_path):
    save(tmp_path / "snow" / "1" / "cat" / "a" / "1.png")
    save(tmp_path / "snow" / "1" / "dog" / "b" / "1.png")
    (found,) = open_stored(tmp_path, CLASSES)
    assert found.image_ids == ["cat/a/1.png", "dog/b/1.png"]


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("fog", "3"), "imagenet-c/fog 3"),
        (("weather", "fog", "3"), "imagenet-c/fog 3"),
        (("fog", "6"), "fog 6"),
        (("mudSplash", "20"), "occlusion/mud_splash 0.2"),
        (("barHorz02", "100"), "occlusion/horizontal_bars_02 1"),
        (("occlusion", "mud_splash", "0.2"), "occlusion/mud_splash 0.2"),
        (("occlusion", "mudSplash", "0.2"), "occlusion/mud_splash 0.2"),
        (("geirhos", "contrast", "c05"), "geirhos/contrast c05"),
    ],
)
def test_conditions_are_called_as_those_that_are_made(parts, name):
    assert " ".join(columns_of(parts).values()) == name


@pytest.mark.parametrize("repeated", [True, False])
def test_arrays_have_five_severities_after_each_other(tmp_path, repeated):
    arrays(tmp_path / "c", repeated=repeated)
    found = open_stored(tmp_path / "c", ["truck", "airplane"])
    assert [one.name for one in found] == [
        f"imagenet-c/{name}/{level}" for name in ("fog", "snow") for level in range(1, 6)
    ]
    snow = found[7]
    # Numbers are in the order of names: 0 is airplane, which the run calls 1.
    assert snow.images.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert snow.image_ids[:2] == ["airplane/0", "truck/1"]
    assert torch.equal(snow.images.read(4), torch.full((3, 4, 4), 100 + 2 * 6 + 4, dtype=torch.uint8))
    assert [one.image_ids for one in found] == [snow.image_ids] * 10


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda snow: (snow / "dog/2.png").unlink(),
            "snow/1 and imagenet-c/snow/2 have other numbers of images: dog 2 and 1",
        ),
        (lambda snow: save(snow / "wolf/1.png"), "classes that training has not: wolf"),
        (move_dogs, "cat 2 and 4"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(tmp_path, spoil, said):
    for severity in (1, 2):
        save_condition(tmp_path / "snow" / str(severity))
    spoil(tmp_path / "snow" / "2")
    with pytest.raises(UserError, match=said) as error:
        open_stored(tmp_path, CLASSES)
    assert "\n" not in str(error.value)


def test_a_run_may_have_classes_that_a_set_has_not_unless_all_are_needed(tmp_path):
    save_condition(tmp_path / "snow" / "1")
    (found,) = open_stored(tmp_path, ["bird", *CLASSES])
    assert found.images.labels.tolist() == [1, 1, 2, 2]
    with pytest.raises(UserError, match="no images of classes that the run was trained on: bird"):
        open_stored(tmp_path, ["bird", *CLASSES], needs_all=True)


def test_no_set_and_damaged_arrays_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no folders of classes"):
        open_stored(tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder"):
        open_stored(tmp_path / "away")
    arrays(tmp_path / "c")
    with pytest.raises(UserError, match="has 2 classes, by number, and the run has 3"):
        open_stored(tmp_path / "c", ["a", "b", "c"])
    path = tmp_path / "c" / "fog.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="fetch it again"):
        open_stored(tmp_path / "c")
    np.save(path, np.zeros((30, 4, 4), np.uint8))
    with pytest.raises(UserError, match="uint8 \\(n, height, width, 3\\)"):
        open_stored(tmp_path / "c")
    np.save(path, np.zeros((29, 4, 4, 3), np.uint8))
    with pytest.raises(UserError, match="29 images for 30 labels"):
        open_stored(tmp_path / "c")
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="shape"):
        open_stored(tmp_path / "c")
