"""The mean spectrum is NumPy's, is measured once, and is read from the files that people have."""

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.outage import MachineFailure, waiting_out
from accel_trainer.data.augment import spectrum as spectrum_module
from accel_trainer.data.augment.geometry import CenterCrop
from accel_trainer.data.augment.spectrum import mean_spectrum, measure, read_spectrum
from accel_trainer.data.dataset import ClassSubset
from accel_trainer.data.decode import CorruptImage
from accel_trainer.data.pipeline import training_spectrum
from accel_trainer.data.sources.digits import Digits
from accel_trainer.data.sources.folders import ImageFolder


class Stub:
    """Random images of many shapes, some of them corrupt; `num_read` counts."""

    def __init__(self, count: int = 150, corrupt: frozenset[int] = frozenset(), seed: int = 0) -> None:
        self.classes = ["cat", "dog"]
        self.labels = np.arange(count) % 2
        self.corrupt = corrupt
        self.seed = seed

    def read(self, index: int) -> torch.Tensor:
        if index in self.corrupt:
            raise CorruptImage("broken")
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        shape = (3, 12 + index % 7, 12 + index % 5)
        channels = torch.tensor([1.0, 0.6, 0.2]).view(3, 1, 1)
        return (torch.rand(shape, generator=generator) * channels * 255).to(torch.uint8)

    def describe(self, index: int) -> str:
        return f"stub {index}"


class FewDigits(Digits):
    """The first digits of a split: enough of every class, and quick to measure."""

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.labels = self.labels[:80]


class Unreadable(FewDigits):
    """Digits whose images must not be read."""

    def read(self, index: int) -> torch.Tensor:
        raise AssertionError("an image was read")


def job(**changes: Any) -> Job:
    given = {"architecture": "resnet18", "dataset": "digits", "image_size": 8, "Noise": {"noise_types": "fourier"}}
    return Job.model_validate({**given, **changes})


def numpys(source: Any, size: int, indices: Any = None) -> np.ndarray:
    """The mean of |fft2| by a loop in float64."""
    total = np.zeros((3, size, size))
    indices = range(len(source.labels)) if indices is None else indices
    for index in indices:
        pixels = CenterCrop(size).crop(source.read(index)).numpy().astype(np.float64) / 255
        total += np.abs(np.fft.fft2(pixels, axes=(1, 2)))
    return total / len(indices)


def kept() -> list[Path]:
    """The spectra in the cache folder."""
    return sorted(Path.home().joinpath(".cache/accel-train/spectra").glob("*.safetensors"))


# -- measuring --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "digits"), [(8, Digits), (11, FewDigits), (32, FewDigits)])
def test_the_mean_spectrum_of_digits_is_numpys(size: int, digits: Any) -> None:
    found = mean_spectrum(job(image_size=size), digits("train"))
    assert found.dtype == torch.float32
    assert found.shape == (3, size, size)
    expected = numpys(digits("train"), size)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 150])
def test_every_image_counts_once_and_every_channel_by_itself(count: int) -> None:
    source = Stub(count)
    np.testing.assert_allclose(measure(source, 9).numpy(), numpys(source, 9), rtol=1e-4)


def test_the_spectrum_has_the_same_bits_on_any_number_of_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for cores in (1, 2, 7, 7):
        monkeypatch.setattr(spectrum_module, "usable_cores", lambda cores=cores: cores)
        found.append(measure(Stub(400), 9))
    assert all(torch.equal(one, found[0]) for one in found)


def test_the_spectrum_leaves_out_images_that_are_corrupt() -> None:
    corrupt = frozenset({0, 5, 63, 64, 149})
    good = [index for index in range(150) if index not in corrupt]
    np.testing.assert_allclose(measure(Stub(150, corrupt), 9).numpy(), numpys(Stub(), 9, good), rtol=1e-4)


def test_a_data_set_of_corrupt_images_is_reported_and_nothing_stored() -> None:
    with pytest.raises(UserError, match="no training image that could be read"):
        mean_spectrum(job(), Stub(70, frozenset(range(70))))
    assert kept() == []


def test_another_error_of_a_source_is_raised_as_it_is() -> None:
    with pytest.raises(AssertionError, match="an image was read"):
        mean_spectrum(job(), Unreadable("train"))
    assert kept() == []


@pytest.mark.parametrize("count", [1, 64, 65, 150])
def test_the_reported_progress_grows_to_the_total(count: int) -> None:
    told: list[tuple[int, int]] = []
    mean_spectrum(job(), Stub(count), lambda done, total: told.append((done, total)))
    done = [each for each, _ in told]
    assert {total for _, total in told} == {count}
    assert done == sorted(set(done))
    assert done[0] > 0
    assert done[-1] == count


def test_a_full_disk_is_reported_with_the_spectrum(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(spectrum_module, "save_file", save)
    with pytest.raises(UserError, match="No space left"):
        mean_spectrum(job(), Stub(3))


# -- keeping ----------------------------------------------------------------------------------------------------


def test_a_spectrum_is_measured_once_and_then_read(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        first = mean_spectrum(job(), FewDigits("train"))
    assert "measuring the mean Fourier spectrum of 80 training images, once" in caplog.text
    told: list[Any] = []
    again = mean_spectrum(job(), Unreadable("train"), lambda *progress: told.append(progress))
    assert torch.equal(again, first)
    assert not told
    (path,) = kept()
    assert torch.equal(load_file(path)["mean_magnitude"], first)


@pytest.mark.parametrize("damage", ["empty", "short", "other amplitudes"])
def test_a_damaged_spectrum_in_the_cache_is_measured_anew(damage: str) -> None:
    first = mean_spectrum(job(), FewDigits("train"))
    (path,) = kept()
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "short": content[:-100], "other amplitudes": content[:-100] + bytes(100)}[damage])
    assert torch.equal(mean_spectrum(job(), FewDigits("train")), first)
    assert torch.equal(load_file(path)["mean_magnitude"], first)


def test_images_replaced_by_others_of_the_same_names_sizes_and_times_are_measured(tmp_path: Path) -> None:
    def write(seed: int) -> None:
        for number in range(4):
            path = tmp_path / "set" / "ab"[number % 2] / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed + number).integers(0, 256 // (1 + seed), (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            os.utime(path, ns=(10**18, 10**18))

    def spectra() -> list[torch.Tensor]:
        images = ImageFolder(tmp_path / "set")
        given = job(dataset="set", data_root=str(tmp_path))
        return [mean_spectrum(given, one) for one in (images, ClassSubset(images, [0, 1]))]

    write(0)
    for before, again in zip(spectra(), spectra(), strict=True):
        assert torch.equal(before, again)
    write(1)
    for found in spectra():
        assert torch.equal(found, measure(ImageFolder(tmp_path / "set"), 8))


@pytest.mark.parametrize(
    "changes",
    [{"architecture": "vgg11"}, {"batch_size": 7}, {"Noise": {"noise_types": "fourier", "ssnrs": 0.3}}, {"seed": 5}],
)
def test_what_has_nothing_to_do_with_the_images_shares_it(changes: dict[str, Any]) -> None:
    first = mean_spectrum(job(), FewDigits("train"))
    assert torch.equal(mean_spectrum(job(**changes), Unreadable("train")), first)


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({"image_size": 9}, FewDigits("train")),
        ({"class_subset": [3, 8]}, ClassSubset(FewDigits("train"), [3, 8])),
        ({"class_subset": [8, 3]}, ClassSubset(FewDigits("train"), [8, 3])),
        ({"class_subset": [3]}, ClassSubset(FewDigits("train"), [3])),
        ({"dataset": "elsewhere", "data_root": "/data"}, FewDigits("train")),
        ({"dataset": "elsewhere", "data_root": "/other"}, FewDigits("train")),
        ({"dataset": "hf:someone/digits", "image_column": "image"}, FewDigits("train")),
        ({"dataset": "hf:someone/digits", "image_column": "other"}, FewDigits("train")),
        ({}, FewDigits("val")),
    ],
)
def test_each_data_set_size_and_choice_of_classes_has_its_file(changes: Any, images: Any) -> None:
    mean_spectrum(job(), FewDigits("train"))
    changed = job(**changes)
    found = mean_spectrum(changed, images)
    np.testing.assert_allclose(found.numpy(), numpys(images, changed.image_size), rtol=1e-4)
    assert len(kept()) == 2


def test_two_roots_and_columns_of_one_name_have_different_files() -> None:
    for changes in (
        {"dataset": "x", "data_root": "/a"},
        {"dataset": "x", "data_root": "/b"},
        {"dataset": "hf:a/x", "image_column": "image"},
        {"dataset": "hf:a/x", "image_column": "other"},
        {"dataset": "hf:b/x", "image_column": "image"},
    ):
        mean_spectrum(job(**changes), Stub(3))
    assert len(kept()) == 5


def test_two_classes_with_equally_many_images_have_different_files() -> None:
    cats, dogs = (ClassSubset(Stub(40), [label]) for label in (0, 1))
    np.testing.assert_array_equal(cats.labels, dogs.labels)
    first, second = (mean_spectrum(job(), images) for images in (cats, dogs))
    assert len(kept()) == 2
    assert not torch.equal(first, second)


def test_a_given_file_is_read_and_no_image(tmp_path: Path) -> None:
    given = torch.rand(3, 8, 8) + 0.1
    given[:, 0, 0] = 50
    for path in (tmp_path / "given.pt", Path.home() / "given.pt"):
        torch.save(given, path)
        shown = f"~/{path.name}" if path.parent == Path.home() else str(path)
        noise = {"noise_types": "fourier", "mean_magnitude_path": shown}
        found = training_spectrum(job(Noise=noise), lambda: pytest.fail("the images were opened"))
        assert found is not None
        assert torch.equal(found, given)
    assert kept() == []


# -- reading ----------------------------------------------------------------------------------------------------


def amplitudes(size: int, channels: int = 3) -> torch.Tensor:
    """A spectrum, zero frequency first and largest, as of real images."""
    return torch.fft.fft2(torch.rand(channels, size, size, generator=torch.Generator().manual_seed(1))).abs()


Write = Callable[[torch.Tensor, Path], Any]


def as_safetensors(tensor: torch.Tensor, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_file({"mean_magnitude": tensor.contiguous()}, path)
    return path


def as_safetensors_of_another_name(tensor: torch.Tensor, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_file({"spectrum": tensor.contiguous()}, path)
    return path


def as_safetensors_with_others(tensor: torch.Tensor, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_file({"a": torch.zeros(2), "mean_magnitude": tensor.contiguous(), "z": torch.zeros(2)}, path)
    return path


def as_tensor(tensor: torch.Tensor, path: Path) -> Path:
    torch.save(tensor, path)
    return path


def as_old_tensor(tensor: torch.Tensor, path: Path) -> Path:
    torch.save(tensor, path, _use_new_zipfile_serialization=False)
    return path


def as_array(tensor: torch.Tensor, path: Path) -> Path:
    torch.save(tensor.numpy(), path)
    return path


WRITERS = [
    as_safetensors, as_safetensors_of_another_name, as_safetensors_with_others, as_tensor, as_old_tensor, as_array,
]  # fmt: skip
EVERY_WRITER = pytest.mark.parametrize("write", WRITERS)


@EVERY_WRITER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 2, 8, 9])
def test_every_kind_of_file_and_layout_is_read(tmp_path: Path, write: Any, dtype: torch.dtype, size: int) -> None:
    path, three, one = tmp_path / "given.pt", amplitudes(size), amplitudes(size, 1)
    for given, expected in {three: three, one: one.expand(3, -1, -1), one[0]: one.expand(3, -1, -1)}.items():
        found = read_spectrum(write(given.to(dtype), path), size)
        assert found.dtype == torch.float32
        assert found.is_contiguous()
        assert torch.equal(found, expected)


@EVERY_WRITER
@pytest.mark.parametrize("size", [2, 3, 8, 9])
def test_zero_frequency_may_be_in_the_centre(tmp_path: Path, write: Any, size: int) -> None:
    for given in (amplitudes(size), amplitudes(size, 1)):
        shifted = torch.from_numpy(np.fft.fftshift(given.numpy(), axes=(1, 2)))
        found = read_spectrum(write(shifted, tmp_path / "given.pt"), size)
        assert torch.equal(found, given.expand(3, -1, -1))


def test_an_array_that_an_older_numpy_pickled_is_read(tmp_path: Path) -> None:
    """NumPy 1 called the module numpy.core; many files are from then."""
    given = amplitudes(8)
    path = as_array(given, tmp_path / "given.pt")
    torch.save(given.numpy(), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert torch.equal(read_spectrum(path, 8), given)


def refused(path: Path, size: int = 8) -> str:
    with pytest.raises(UserError) as caught:
        read_spectrum(path, size)
    said = str(caught.value)
    assert said.startswith("Noise.mean_magnitude_path: ")
    assert str(path) in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_missing_file_of_amplitudes_is_reported(tmp_path: Path, suffix: str) -> None:
    assert f"no file {tmp_path / 'none'}{suffix}; leave it out" in refused(tmp_path / f"none{suffix}")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert "no file" in refused(folder)


@EVERY_WRITER
@pytest.mark.parametrize("shape", [(3, 9, 9), (9, 9), (1, 9, 9), (3, 8, 9), (3, 8, 5), (2, 8, 8), (4, 8, 8), (1, 8)])
def test_a_wrong_shape_is_reported_with_the_right_one(tmp_path: Path, write: Any, shape: tuple[int, ...]) -> None:
    said = refused(write(torch.ones(shape), tmp_path / "given.pt"))
    assert f"has the shape {shape}; image_size 8 needs (3, 8, 8)" in said


@EVERY_WRITER
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_values_that_cannot_be_amplitudes_are_reported(tmp_path: Path, write: Any, value: float) -> None:
    given = amplitudes(8)
    given[1, 2, 3] = value
    assert "values that are no amplitudes: they must be 0 or more" in refused(write(given, tmp_path / "given.pt"))


@pytest.mark.parametrize(
    "content",
    [
        {"mean": torch.ones(3, 8, 8)},
        [torch.ones(3, 8, 8)],
        7,
        "text",
        None,
        torch.ones(8),
        torch.ones(()),
        torch.ones(1, 3, 8, 8),
        torch.ones(3, 8, 8, dtype=torch.int64),
        torch.ones(3, 8, 8, dtype=torch.complex64),
        np.ones((3, 8, 8), dtype=np.int64),
        np.ones((3, 8, 8), dtype=np.complex64),
    ],
    ids=lambda content: (
        f"{type(content).__name__}-{getattr(content, 'dtype', '')}{list(getattr(content, 'shape', ''))}"
    ),
)
def test_a_file_without_a_tensor_of_amplitudes_is_reported(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "given.pt")
    said = refused(tmp_path / "given.pt")
    assert any(words in said for words in ("no tensor of amplitudes", "more than a tensor", "no amplitudes"))


@pytest.mark.parametrize(
    "given",
    [torch.ones(()), torch.ones(1), torch.ones(1, 1, 8, 8), torch.ones(3, 8, 8, dtype=torch.complex64)],
    ids=lambda given: f"{given.dtype}-{list(given.shape)}",
)
def test_nor_does_a_safetensors_file_without_one_fail_otherwise(tmp_path: Path, given: torch.Tensor) -> None:
    refused(as_safetensors(given, tmp_path / "given"))


@pytest.mark.parametrize("tensors", [{}, {"a": torch.ones(3, 8, 8), "b": torch.ones(3, 8, 8)}])
def test_safetensors_with_no_or_several_tensors_are_reported(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "given.safetensors"
    save_file(tensors, path)
    assert "holds no tensor of amplitudes (called 'mean_magnitude' if there are several)" in refused(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".npy", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x80\x02", pickle.dumps(np.ones(3))])
def test_a_file_of_another_format_is_reported(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"given{suffix}"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("write", [as_tensor, as_safetensors, as_array])
def test_half_a_file_of_amplitudes_is_reported(tmp_path: Path, write: Any) -> None:
    path = write(amplitudes(8), tmp_path / "given.pt")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path)


class Harm:
    """What a stranger's pickle may do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "harm")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("wrap", [lambda harm: harm, lambda harm: {"mean": torch.ones(3, 8, 8), "more": harm}])
def test_a_pickle_that_does_harm_is_refused_and_not_executed(tmp_path: Path, wrap: Any, new_format: bool) -> None:
    path, harmed = tmp_path / "given.pt", tmp_path / "harmed"
    torch.save(wrap(Harm(harmed)), path, _use_new_zipfile_serialization=new_format)
    assert "holds more than a tensor, which could run code" in refused(path)
    assert not harmed.exists()
    torch.load(path, weights_only=False)  # it would have
    assert harmed.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_plain_pickle_that_does_harm_is_refused_and_not_executed(tmp_path: Path) -> None:
    path, harmed = tmp_path / "given.pt", tmp_path / "harmed"
    path.write_bytes(pickle.dumps(Harm(harmed)))
    refused(path)
    assert not harmed.exists()


# -- the cache knows what it was made from ---------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(8):
        path = tmp_path / "sets/set/train/a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return path.parent.parent


def of_folder(folder: Path) -> torch.Tensor:
    return mean_spectrum(job(dataset="set", data_root=str(folder.parent.parent)), ImageFolder(folder))


def test_other_images_by_the_same_names_are_measured_anew(images: Path) -> None:
    before = of_folder(images)
    assert len(kept()) == 1
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(images / "a" / "3.png")
    after = of_folder(images)
    assert not torch.equal(before, after)
    assert torch.equal(after, measure(ImageFolder(images), 8))


@pytest.mark.parametrize("waits", [False, True])
def test_what_is_measured_while_the_disk_is_away_is_not_kept(
    images: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    read, failed = ImageFolder.read, set[int]()

    def away(source: ImageFolder, index: int) -> torch.Tensor:
        if not waits or index not in failed:
            failed.add(index)
            raise OSError(errno.EIO, "away")
        return read(source, index)

    monkeypatch.setattr(ImageFolder, "read", away)
    if waits:
        with waiting_out(lambda: False):
            found = of_folder(images)
    else:
        with pytest.raises(MachineFailure, match="cannot be read: away"):
            of_folder(images)
        assert not kept()
        monkeypatch.undo()
        found = measure(ImageFolder(images), 8)
    monkeypatch.setattr(ImageFolder, "read", read)
    assert torch.equal(found, measure(ImageFolder(images), 8))
