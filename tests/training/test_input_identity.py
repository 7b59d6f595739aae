"""What a run reads beside images is part of it: masks of occluders, a spectrum, the weights that it starts from."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import TINY, StopAt
from PIL import Image
from ranks import run_two_ranks

from accel_trainer.config import Job
from accel_trainer.core.processes import StopRequest
from accel_trainer.core.safe_torch import checksum_of_tensors
from accel_trainer.data.augment import spectrum as spectrum_module
from accel_trainer.data.occluders import masks as masks_module
from accel_trainer.evaluation.accuracy import evaluate
from accel_trainer.run.dataset_record import read_dataset_record
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState
from accel_trainer.training import trainer
from accel_trainer.training.reporting import TrainingResult
from accel_trainer.training.session import SessionOptions, train

pytestmark = pytest.mark.usefixtures("tiny_models")
Begin = Callable[..., TrainingResult]
FORMS = ["bars", "mud"]


def mask(seed: int) -> np.ndarray:
    """uint8 (8, 8), half of it covered."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels.ravel()[np.random.default_rng(seed).permutation(64)[:32]] = 255
    return pixels


def save_masks(path: Path, seed: int) -> None:
    """Four masks, in a file that is always of the same size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(np.stack([mask(seed + number) for number in range(4)])), path)


def save_png(path: Path, seed: int, compress_level: int = 0) -> None:
    """Without compression always of the same size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask(seed)).save(path, compress_level=compress_level)


@pytest.fixture
def occluders(tmp_path: Path) -> Path:
    """bars in files of torch, mud in PNGs."""
    folder = tmp_path / "occluders"
    for level in (40, 60):
        save_masks(folder / "bars" / str(level) / "occluders.pt", level)
    for number in range(3):
        save_png(folder / "mud" / "50" / f"{number}.png", number)
    return folder


@pytest.fixture
def begin(make_job: Callable[..., Job], tmp_path: Path, occluders: Path) -> Begin:
    """Train a job with occluders; `epochs` more each time."""

    def start(epochs: int = 1, stop: StopRequest | None = None, **given: Any) -> TrainingResult:
        few = {"class_subset": [0, 1], "num_epochs": epochs, "Occlusion": occlusion(occluders)}
        run = RunFolder(tmp_path / "run")
        run.create()
        options = SessionOptions(cpu=True, prints=False)
        return train(make_job(**{**TINY, **few, **given}), run, StopRequest() if stop is None else stop, options)

    return start


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def occlusion(folder: Path) -> dict[str, Any]:
    return {"occluder_dir": str(folder), "form": FORMS}


def recorded(run: RunFolder, split: str) -> dict[str, int | None]:
    record = read_dataset_record(run)
    assert record is not None
    assert record.splits[split].is_complete
    return {one.name: one.images for one in record.splits[split].classes}


def test_the_masks_of_every_level_are_recorded(begin: Begin, run: RunFolder) -> None:
    begin().check()
    assert recorded(run, "occluders") == {"bars/40": 1, "bars/60": 1, "mud/50": 3}
    before = run.dataset.stat().st_mtime_ns
    begin(2).check()
    assert run.dataset.stat().st_mtime_ns == before


def same_times(path: Path, change: Callable[[], object]) -> None:
    """As a tool leaves it that keeps times."""
    size, times = path.stat().st_size, path.stat()
    change()
    assert path.stat().st_size == size
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def write_over(path: Path, seed: int) -> None:
    """Other masks in their places, as by a map of the file: the checksums that torch has written stay."""
    with zipfile.ZipFile(path) as archive:
        before = {entry.filename: entry.CRC for entry in archive.infolist()}
        tensors = max(before, key=lambda name: archive.getinfo(name).file_size)
        place, size = path.read_bytes().index(archive.read(tensors)), archive.getinfo(tensors).file_size
    other = np.stack([mask(seed + number) for number in range(4)]).tobytes()
    assert len(other) == size
    with path.open("r+b") as file:
        file.seek(place)
        file.write(other)
    with zipfile.ZipFile(path) as archive:
        assert {entry.filename: entry.CRC for entry in archive.infolist()} == before


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "file replaced": (
        lambda folder: same_times(path := folder / "bars/40/occluders.pt", lambda: save_masks(path, 9)),
        "1 mask file changed (bars/40/occluders.pt)",
    ),
    "file written over": (
        lambda folder: same_times(path := folder / "bars/40/occluders.pt", lambda: write_over(path, 9)),
        "1 mask file changed (bars/40/occluders.pt)",
    ),
    "png replaced": (
        lambda folder: same_times(path := folder / "mud/50/1.png", lambda: save_png(path, 9)),
        "1 mask file changed (mud/50/1.png)",
    ),
    "added": (lambda folder: save_png(folder / "mud/50/9.png", 9), "1 mask file new (mud/50/9.png)"),
    "removed": (lambda folder: (folder / "mud/50/0.png").unlink(), "1 mask file gone (mud/50/0.png)"),
    "renamed": (
        lambda folder: (folder / "mud/50/0.png").rename(folder / "mud/50/x.png"),
        "1 mask file gone (mud/50/0.png); occluders: 1 mask file new (mud/50/x.png)",
    ),
    "level new": (lambda folder: save_masks(folder / "bars/70/occluders.pt", 7), "1 level new (bars/70)"),
    "level renamed": (
        lambda folder: (folder / "bars/40").rename(folder / "bars/45"),
        "1 level renamed (bars/40 -> bars/45)",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_masks_are_refused_before_any_step_with_which_differ(
    begin: Begin, run: RunFolder, occluders: Path, change: str
) -> None:
    begin().check()
    before = {path: path.read_bytes() for path in (run.dataset, run.config, run.performance)}
    alter, what = CHANGES[change]
    alter(occluders)
    result = begin(2)
    assert result.state is RunState.INVALID
    assert str(result.error) == (
        f"Occlusion.occluder_dir: '{occluders}' is not what the run in {run.path} began with: occluders: {what}; "
        "restore it, set checkpoint to -1 to start over (the old run is kept in previous/), or allow_changes to true "
        "to go on with what is there now"
    )
    assert {path: path.read_bytes() for path in before} == before
    begin(2, allow_changes=True).check()
    begin(3).check()


def test_a_copy_of_the_masks_is_the_same(begin: Begin, occluders: Path, tmp_path: Path) -> None:
    begin().check()
    shutil.copytree(occluders, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(occluders)
    (tmp_path / "copy").rename(occluders)
    begin(2).check()


def test_masks_may_lie_elsewhere(begin: Begin, run: RunFolder, occluders: Path, tmp_path: Path) -> None:
    begin().check()
    shutil.copytree(occluders, tmp_path / "copy", copy_function=shutil.copyfile)
    begin(2, Occlusion=occlusion(tmp_path / "copy")).check()
    assert f'Occlusion.occluder_dir "{occluders}" -> "{tmp_path}/copy"' in run.log.read_text()
    assert "is begun again" not in run.log.read_text()
    save_png(tmp_path / "copy/mud/50/1.png", 9)
    assert "1 mask file changed (mud/50/1.png)" in str(begin(3, Occlusion=occlusion(tmp_path / "copy")).error)
    other = {**occlusion(occluders), "probability": 0.5}
    assert "Occlusion.probability was 1.0, is 0.5" in str(begin(3, Occlusion=other).error)


@pytest.mark.parametrize("is_old", [True, False])
def test_masks_elsewhere_are_refused_where_it_is_not_known_what_they_were(
    begin: Begin, run: RunFolder, occluders: Path, tmp_path: Path, is_old: bool
) -> None:
    begin().check()
    if is_old:
        run.dataset.unlink()
    else:
        record = json.loads(run.dataset.read_text())
        del record["splits"]["occluders"]
        run.dataset.write_text(json.dumps(record))
    shutil.copytree(occluders, tmp_path / "copy")
    expected = f"occluders: they were in '{occluders}', and what was there is not recorded"
    assert expected in str(begin(2, Occlusion=occlusion(tmp_path / "copy")).error)


def test_levels_that_are_not_drawn_do_not_count(begin: Begin, run: RunFolder, occluders: Path) -> None:
    some = {"occluder_dir": str(occluders), "form": "bars", "visibility": [40]}
    begin(Occlusion=some).check()
    assert recorded(run, "occluders") == {"bars/40": 1}
    save_masks(occluders / "bars/60/occluders.pt", 1)
    save_png(occluders / "mud/50/1.png", 9)
    begin(2, Occlusion=some).check()


def test_a_run_of_an_older_version_is_given_the_record_of_its_masks(
    begin: Begin, run: RunFolder, occluders: Path
) -> None:
    begin().check()
    record = json.loads(run.dataset.read_text())
    del record["splits"]["occluders"]
    run.dataset.write_text(json.dumps(record))
    begin(2).check()
    assert recorded(run, "occluders") == {"bars/40": 1, "bars/60": 1, "mud/50": 3}
    save_png(occluders / "mud/50/1.png", 9)
    assert "1 mask file changed (mud/50/1.png)" in str(begin(3).error)


def test_what_was_interrupted_before_it_was_a_run_takes_what_is_there(
    begin: Begin, run: RunFolder, occluders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_config", killed)
        begin()
    assert run.dataset.exists()
    assert not run.has_run
    save_masks(occluders / "bars/40/occluders.pt", 9)
    begin().check()
    begin(2).check()


def test_a_machine_reads_the_masks_of_a_file_once_for_its_checksum(
    begin: Begin, run: RunFolder, occluders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path, *given: Any) -> int | None:
        read.append(path.parent.name)
        return checksum_of_tensors(path, *given)

    monkeypatch.setattr(masks_module, "checksum_of_tensors", counted)
    begin().check()
    begin(2).check()
    assert sorted(read) == ["40", "60"]
    save_masks(occluders / "bars/60/occluders.pt", 60)  # the same again
    begin(3).check()
    assert sorted(read) == ["40", "60", "60"]


def test_masks_are_compared_without_a_cache(
    begin: Begin, occluders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for path in (occluders / "mud").rglob("*.png"):
        path.unlink()
    save_masks(occluders / "mud/50/occluders.pt", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    begin().check()
    write_over(occluders / "bars/40/occluders.pt", 9)
    assert "1 mask file changed (bars/40/occluders.pt)" in str(begin(2).error)


def test_masks_in_files_without_checksums_are_compared_by_their_bytes(begin: Begin, occluders: Path) -> None:
    """As torch once wrote them."""
    path = occluders / "bars/40/occluders.pt"
    masks = torch.load(path)
    torch.save(masks, path, _use_new_zipfile_serialization=False)
    begin().check()
    begin(2).check()
    masks[0, 0, 0] ^= 255
    torch.save(masks, path, _use_new_zipfile_serialization=False)
    assert "1 mask file changed (bars/40/occluders.pt)" in str(begin(3).error)


CONTRASTIVE = {
    "criterion": "SupConLoss", "num_views": 2, "batch_size": 64,
    "architecture": "small_cnn", "architecture_args": {"features": [4, 4, 4], "num_classes": 8},
}  # fmt: skip


def test_an_evaluation_of_augmented_images_names_other_masks(begin: Begin, run: RunFolder, occluders: Path) -> None:
    begin(**CONTRASTIVE).check()
    before = evaluate(run)
    assert "other_inputs" not in before.as_row()
    save_masks(occluders / "bars/40/occluders.pt", 9)
    after = evaluate(run)
    assert after.scores != before.scores
    assert after.as_row()["other_inputs"] == ["occluders: 1 mask file changed (bars/40/occluders.pt)"]


# -- the spectrum -----------------------------------------------------------------------------------------------------


def fourier(path: Path | None) -> dict[str, Any]:
    noise = {"noise_types": "fourier", "ssnrs": 0.5}
    return noise if path is None else {**noise, "mean_magnitude_path": str(path)}


def save_spectrum(path: Path, seed: int) -> None:
    torch.save(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(seed)), path)


def test_another_spectrum_of_the_same_name_and_size_is_refused(begin: Begin, run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "spectrum.pt"
    save_spectrum(path, 0)
    with_noise = {"Noise": fourier(path), "Occlusion": None}
    begin(**with_noise).check()
    assert recorded(run, "spectrum") == {"file": 1}
    save_spectrum(path, 0)
    begin(2, **with_noise).check()
    same_times(path, lambda: save_spectrum(path, 1))
    expected = f"Noise.mean_magnitude_path: '{path}' is not what the run in {run.path} began with: spectrum: other ampl"
    assert str(begin(3, **with_noise).error).startswith(expected)
    begin(3, **with_noise, allow_changes=True).check()
    begin(4, **with_noise).check()


def test_all_that_differs_is_reported_at_once(begin: Begin, run: RunFolder, tmp_path: Path, occluders: Path) -> None:
    path = tmp_path / "spectrum.pt"
    save_spectrum(path, 0)
    begin(Noise=fourier(path)).check()
    save_spectrum(path, 1)
    save_png(occluders / "mud/50/1.png", 9)
    expected = (
        f"Occlusion.occluder_dir: '{occluders}' and '{path}' are not what the run in {run.path} began with: occluders: "
        "1 mask file changed (mud/50/1.png); spectrum: other amplitudes; restore"
    )
    assert str(begin(2, Noise=fourier(path)).error).startswith(expected)


def test_of_a_measured_spectrum_how_it_is_measured_counts(
    begin: Begin, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_noise = {"Noise": fourier(None), "Occlusion": None}
    begin(**with_noise).check()
    version = spectrum_module.VERSION
    assert recorded(run, "spectrum") == {f"measured (version {version})": 1}
    begin(2, **with_noise).check()
    monkeypatch.setattr(spectrum_module, "VERSION", version + 1)
    assert (
        f"the measured spectrum is not what the run in {run.path} began with: spectrum: measured (version {version}) "
        f"then, measured (version {version + 1}) now;"
    ) in str(begin(3, **with_noise).error)


# -- weights ----------------------------------------------------------------------------------------------------------


def test_other_weights_to_start_from_are_refused_until_a_state_is_saved(
    begin: Begin, run: RunFolder, tmp_path: Path
) -> None:
    begin(Occlusion=None).check()
    path = tmp_path / "weights.safetensors"
    shutil.copyfile(run.best_weights, path)
    given = {"Occlusion": None, "pretrained": str(path), "checkpoint": None}
    shutil.rmtree(run.path)
    begin(**given, stop=StopAt(1))
    begin(**given).check()
    assert recorded(run, "starting_weights") == {"file": 1}
    shutil.rmtree(run.resume)
    run.performance.unlink()
    shutil.copyfile(run.best_weights, path)
    expected = f"pretrained: '{path}' is not what the run in {run.path} began with: starting_weights: other weights;"
    assert str(begin(2, **given).error).startswith(expected)
    begin(2, **given, allow_changes=True).check()
    path.unlink()
    begin(3, **given).check()


# -- several processes ------------------------------------------------------------------------------------------------

ON_RANKS = """
import os
from pathlib import Path
os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", ACCELERATE_USE_CPU="true")
from accelerate import Accelerator
from accel_trainer.config import Job
from accel_trainer.core.errors import AccelTrainError
from accel_trainer.data.occluders.bank import open_forms
from accel_trainer.data.occluders.listing import OccluderFiles
from accel_trainer.data.open import open_images
from accel_trainer.run.folder import RunFolder
from accel_trainer.training.identity.agreement import agree_on_data
from accel_trainer.training.identity.check import RunData

folder = Path(folder)

def agree(occluders):
    section = {"occluder_dir": str(occluders), "form": ["bars", "mud"]}
    job = Job(architecture="resnet18", dataset="digits", class_subset=[0, 1], Occlusion=section)
    inputs = {"occluders": OccluderFiles(open_forms(occluders, section["form"], None))}
    data = RunData(open_images(job), inputs)
    try:
        agree_on_data(job, RunFolder(folder / "run"), data, Accelerator(cpu=True), lambda: False)
    except AccelTrainError as error:
        return f"{type(error).__name__}: {error}"
    return "the same"

found = [agree(folder / "occluders"), agree(folder / "others"), agree(folder / ("others" if rank else "occluders"))]
found.append(agree(folder / ("other pngs" if rank else "occluders")))
(folder / f"found-{rank}").write_text("\\n".join(found))
"""


def test_every_rank_refuses_other_masks_alike(begin: Begin, occluders: Path, tmp_path: Path) -> None:
    begin().check()
    shutil.copytree(occluders, tmp_path / "others")
    save_masks(tmp_path / "others/bars/40/occluders.pt", 9)
    shutil.copytree(occluders, tmp_path / "other pngs")
    save_png(tmp_path / "other pngs/mud/50/1.png", 9)
    run_two_ranks(ON_RANKS, tmp_path)
    first, second = ((tmp_path / f"found-{rank}").read_text().splitlines() for rank in (0, 1))
    assert first == second
    same, refused, unlike, unlike_pngs = first
    assert same == "the same"
    assert refused.startswith(f"UserError: Occlusion.occluder_dir: '{tmp_path}/others' is not what the run in ")
    assert "occluders: 1 mask file changed (bars/40/occluders.pt)" in refused
    assert unlike == "MachineFailure: the processes of this job have different data of 'digits': occluders"
    assert unlike_pngs == unlike
