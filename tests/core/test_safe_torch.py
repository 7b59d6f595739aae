"""Files of torch.save that somebody else has made."""

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import REPOSITORY

from accel_trainer.core.safe_torch import load_tensors


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def compressed(path: Path, like: Path) -> Path:
    """The same archive, with 100 MB of zeros in the place of its numbers."""
    with zipfile.ZipFile(like) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, bytes(100_000_000) if "/data/" in entry.filename else old.read(entry))
    return path


def test_only_safe_torch_unpickles_files_in_this_package() -> None:
    """By whatever name: a file that calls a loader of pickles is one to look at."""
    loaders = ("torch.load(", "pickle.load", "np.load(", "joblib", "weights_only=False", "allow_pickle")
    found = {
        (path.relative_to(REPOSITORY).as_posix(), word)
        for path in (REPOSITORY / "accel_trainer").rglob("*.py")
        for word in loaders
        if word in path.read_text()
    }
    assert found == {
        ("accel_trainer/core/safe_torch.py", "torch.load("),
        # NumPy refuses pickles unless it is asked to take them. One is of the package, and two of a run folder: the
        # listing of its images and their checksums, with pickles refused in so many words.
        ("accel_trainer/data/sources/digits.py", "np.load("),
        ("accel_trainer/training/identity/contents.py", "np.load("),
        ("accel_trainer/training/identity/contents.py", "allow_pickle"),
        ("accel_trainer/training/identity/listing.py", "np.load("),
        ("accel_trainer/training/identity/listing.py", "allow_pickle"),
        # Arrays that a user names: labels of a set of images, dissimilarity matrices.
        ("accel_trainer/degradations/stored_sets.py", "np.load("),
        ("accel_trainer/degradations/stored_sets.py", "allow_pickle"),
        ("accel_trainer/representations/rdm_files.py", "np.load("),
        ("accel_trainer/representations/rdm_files.py", "allow_pickle"),
        ("accel_trainer/representations/write_rdms.py", "np.load("),
        ("accel_trainer/representations/write_rdms.py", "allow_pickle"),
        # What a user is advised to do.
        ("accel_trainer/training/pretrained/weight_files.py", "torch.load("),
        ("accel_trainer/training/pretrained/weight_files.py", "weights_only=False"),
    }


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("mmap", [True, False])
def test_nothing_in_a_file_is_run(tmp_path: Path, is_zip: bool, mmap: bool) -> None:
    path, marker = tmp_path / "w.pt", tmp_path / "marker"
    torch.save({"w": torch.ones(1), "more": Malicious(marker)}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(Exception):  # noqa: B017, PT011 - of torch, which has several
        load_tensors(path, mmap=mmap)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # it would have
    assert marker.exists()


@pytest.mark.parametrize("mmap", [True, False])
def test_an_archive_that_becomes_larger_when_it_is_unpacked_is_not(tmp_path: Path, mmap: bool) -> None:
    torch.save({"w": torch.ones(4)}, tmp_path / "plain.pt")
    path = compressed(tmp_path / "bomb.pt", like=tmp_path / "plain.pt")
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match="a compressed archive, of 100,00"):
        load_tensors(path, mmap=mmap)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(OSError, match="not a regular file"):
        load_tensors(tmp_path / "w.pt")
