"""What rules 1 of training come to: jobs of every kind, and what version 0.2, which knew no others, made of them.

tests/data/first_rules.json is the record of that version, commit c3af118. To make it anew, with the torch that is
installed now:

    git worktree add ../before c3af118
    PYTHONPATH=../before python tests/first_rules.py tests/data/first_rules.json
    git worktree remove ../before

Digests hold for the same libraries on the same kind of processor only. What is recorded beside them holds everywhere:
labels, and pixels and parameters at some places.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image
from torch import Tensor

import accel_trainer
from accel_trainer.config import Job
from accel_trainer.core.allow_imports import ALLOW_VARIABLE
from accel_trainer.data.augment.mixing import MixedLabels
from accel_trainer.data.loader import Loader
from accel_trainer.data.open import open_data_set
from accel_trainer.data.pack.split_writer import PackSettings
from accel_trainer.data.pack.writer import pack
from accel_trainer.training.build import build
from accel_trainer.training.step import TrainingStep

RECORD = Path(__file__).parent / "data" / "first_rules.json"
NUM_BATCHES = 2
# Of each batch and of all parameters: so many numbers, evenly spread.
NUM_SAMPLES = 24

_ALL: dict[str, Any] = {
    "architecture": "tiny_models:NormAndDropout",
    "dataset": "digits",
    "class_subset": [0, 1],
    "image_size": 24,
    "batch_size": 16,
    "optimizer_args": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4},
    "trackers": [],
    "channels_last": False,  # how images lie in memory is not recorded here: training/runtime/test_kernels
}
_SIMCLR = {"criterion": "SimCLRLoss", "num_views": 2, "primary_metric": "SimCLRLoss", "architecture": "small_cnn"}
_BARS = {"occluder_dir": "occluders", "form": "bars", "probability": 0.8, "visibility": [50, 75]}
_FORMS = {**_BARS, "form": ["bars", "textures"]}
_NOISE = {"ssnrs": [0.3, 0.7], "probs": [0.4, 0.4]}
_CLIP = {
    "architecture": "cornet_rt",
    "architecture_args": {"features": [32] * 4, "num_cycles": 4},
    "video": True,
    "batch_size": 24,
}
_FOLDER = {"dataset": "pictures", "class_subset": None, "data_root": ".", "batch_size": 8}

JOBS: dict[str, dict[str, Any]] = {
    "default": {},
    "none": {"transform_type": "none", "image_size": 30},
    "weak resize": {"transform_type": "default-weak-resize"},
    "contrastive": {"transform_type": "contrastive"},
    "contrastive, no blur, weak resize": {"transform_type": "contrastive-no-blur-weak-resize"},
    "SimCLR": {**_SIMCLR, "transform_type": "contrastive"},
    "views": {"num_views": 2},
    "views that share draws": {"num_views": 2, "view_dependence": True, "transform_type": "contrastive"},
    "a batch that shares draws": {"batch_dependence": True, "transform_type": "contrastive"},
    "RandAugment": {"transform_type": "default-randaugment"},
    "TrivialAugment": {"transform_type": "default-trivialaugment"},
    "AugMix": {"transform_type": "default-augmix"},
    "occlusion": {"Occlusion": {**_BARS, "color": ["random", [250, 20, 0]]}},
    "occlusion, textures": {"Occlusion": {**_BARS, "form": "textures", "vis_probs": [1, 3]}},
    "occlusion, both, all levels": {"Occlusion": {**_FORMS, "visibility": "all", "random_resize": True}},
    "occlusion, pink noise": {"Occlusion": {**_BARS, "color": ["random", "pink_noise"]}},
    "occlusion, contrastive": {"transform_type": "contrastive", "Occlusion": _FORMS},
    "occlusion, RandAugment": {"transform_type": "default-randaugment", "Occlusion": _FORMS},
    "occlusion of one view, SimCLR": {**_SIMCLR, "transform_type": "contrastive", "Occlusion": {**_BARS, "views": [1]}},
    "erasing with a brightness": {"randomerase": 0.25},
    "erasing with a color": {"randomerase": [0.1, 0.9, 0.4]},
    "erasing with random pixels": {"randomerase": "random"},
    "occlusion, no crop": {"transform_type": "none", "Occlusion": _FORMS},
    "occlusion of a probability of 0": {"Occlusion": {**_BARS, "probability": 0}},
    "occlusion that hides nothing": {"Occlusion": {**_BARS, "visibility": 1.0}},
    "occlusion, one weight of 0": {"Occlusion": {**_BARS, "vis_probs": [0, 1], "visibility": [75, 50]}},
    "CutMix": {"cutmix": True},
    "CutMix of images": {"cutmix": {"alpha": 0.5}, "batch_dependence": True},
    "MixUp": {"mixup": {"alpha": 0.4}},
    "CutMix or MixUp, views": {"cutmix": {"alpha": 2}, "mixup": True, "num_views": 2},
    "blur": {"Blur": {"sigmas": [0.7, 3], "probs": [0.5, 0.3]}},
    "blur of probabilities of 0": {"Blur": {"sigmas": [0.7, 3], "probs": [0, 0]}},
    "noise of a probability of 0": {"Noise": {"noise_types": "gaussian", "ssnrs": 0.5, "probs": 0}},
    "no Fourier noise": {
        "Noise": {"noise_types": "fourier", "ssnrs": 0.5, "probs": 0},
        "transform_type": "contrastive",
    },
    "Gaussian noise": {"Noise": {**_NOISE, "noise_types": "gaussian"}},
    "Fourier noise": {"Noise": {**_NOISE, "noise_types": "fourier"}},
    "both noises": {"Noise": {**_NOISE, "noise_types": ["gaussian", "fourier"]}},
    "frames": {**_CLIP, "Blur": {"sigmas": [4, 1, 0]}},
    "frames, occluded, gray, erased": {
        **_CLIP,
        "num_views": 3,
        "transform_type": "contrastive-no-blur",
        "Occlusion": _BARS,
        "randomerase": 0.5,
    },
    "everything": {
        "transform_type": "contrastive",
        "Occlusion": _FORMS,
        "Blur": {"sigmas": 1, "probs": 0.5},
        "Noise": {**_NOISE, "noise_types": ["gaussian", "fourier"]},
        "randomerase": "random",
        "cutmix": True,
    },
    "SGD of a rate": {"optimizer_args": {"lr": 0.1}},
    "SGD of a momentum": {"optimizer_args": {"momentum": 0.5}},
    "SGD that is named": {"optimizer": "SGD", "optimizer_args": {"lr": 0.1, "weight_decay": 0.1}},
    "SGD of defaults": {"optimizer_args": None},
    "accumulation": {"gradient_accumulation": 2},
    "CORnet-RT": {"architecture": "cornet_rt", "image_size": 16},
    "CORnet-R": {"architecture": "cornet_r", "image_size": 16},
    "CORnet-Z": {"architecture": "cornet_z", "image_size": 16},
    "folder": {**_FOLDER, "transform_type": "contrastive"},
    "pack": {**_FOLDER, "dataset": "pictures.pack", "transform_type": "contrastive"},
    "pack of JPEGs": {**_FOLDER, "dataset": "pictures.jpeg.pack"},
}
# How batches may be made besides: by so many threads of the loader, or on the training's device.
PLACES = {"": (0, False), "by two threads": (2, False), "on the device": (0, True)}
PLACED = ("default", "contrastive", "occlusion, contrastive", "occlusion, RandAugment", "everything", "frames")


def names() -> list[str]:
    """What is recorded: jobs, some of them in several places."""
    return [name if not place else f"{name}: {place}" for place in PLACES for name in (PLACED if place else JOBS)]


# -- what jobs are trained on -----------------------------------------------------------------------------------------


@contextmanager
def materials(folder: Path) -> Iterator[None]:
    """Lay out what the jobs name, in an empty folder; it is the working folder meanwhile, and home. Pixels are made of
    integers without a generator, so that they are the same in every version of everything."""
    for split, count in (("train", 24), ("val", 4)):
        for number in range(count):
            path = folder / "pictures" / split / "ab"[number % 2] / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_pixels(number, 40 + number, 52)).save(path)
    for form, channels in (("bars", 1), ("textures", 4)):
        for visibility in (50, 75):
            path = folder / "occluders" / form / str(visibility) / "occluders.pt"
            path.parent.mkdir(parents=True)
            torch.save(torch.stack([_mask(number, channels, visibility) for number in range(5)]), path)
    files = open_data_set("pictures", folder, None, None)
    for name, how in (("pictures.pack", PackSettings(32, "raw")), ("pictures.jpeg.pack", PackSettings(32, "jpeg", 90))):
        pack(files, "pictures", folder / name, how, 1, lambda done, total: None)
    before, working = dict(os.environ), Path.cwd()
    os.environ |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), ALLOW_VARIABLE: "tiny_models"}
    os.chdir(folder)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # their number changes the last bits
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
        os.chdir(working)
        os.environ.clear()
        os.environ |= before


def _pixels(number: int, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A coarse pattern and a fine one: (height, width, 3)."""
    down, across, channel = np.ogrid[:height, :width, :3]
    coarse = (down * (3 + number) + across * 5 * (1 + channel)) // 2 % 180
    fine = (down * 7919 + across * 104729 + channel * 1299709 + number * 15485863) % 76
    return (coarse + fine).astype(np.uint8)


def _mask(number: int, channels: int, visibility: int) -> Tensor:
    """Slanting bars with soft edges, the textured ones with colors: (channels, 48, 48), or (48, 48) of one channel."""
    down, across = np.ogrid[:48, :48]
    place = (down * (1 + number % 3) + across * 2 + number * 5) % 24
    alpha = torch.from_numpy(np.clip((24 * (100 - visibility) // 100 - place) * 128, 0, 255).astype(np.uint8))
    if channels == 1:
        return alpha
    return torch.cat([torch.from_numpy(_pixels(number, 48, 48)).permute(2, 0, 1), alpha[None]])


# -- what comes of a job ----------------------------------------------------------------------------------------------


def job_of(name: str, rules: int = 1) -> Job:
    """A job, by some rules where there are several."""
    what, _, _ = name.partition(": ")
    return Job(**{**_ALL, **JOBS[what], **({"rules": rules} if "rules" in Job.model_fields else {})})


def outcome(name: str, rules: int = 1) -> dict[str, Any]:
    """The first batches of a job, and its parameters after as many steps; within `materials`."""
    _, _, place = name.partition(": ")
    num_threads, on_device = PLACES[place]
    job = job_of(name, rules).resolve()
    parts = build(job, 1, augment_on_device=on_device)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=job.gradient_accumulation)
    try:
        step = TrainingStep(job, parts, accelerator)
        step.train_mode()
        micro_batches = parts.sampling.micro_batches(1, 0)
        plans = [next(micro_batches) for _ in range(NUM_BATCHES * job.gradient_accumulation)]
        batches, labels = [], []
        with Loader(num_threads) as loader:
            for number, batch in enumerate(loader.batches(parts.train_reader, plans)):
                batches.append(_sampled(batch.inputs.on("cpu"), *_parts_of(batch.labels)))
                labels.append([[round(value, 5) for value in part.tolist()] for part in _parts_of(batch.labels)])
                step(batch, *divmod(number, job.gradient_accumulation))
        return {"batches": batches, "labels": labels, "parameters": _sampled(*step.plain_model.state_dict().values())}
    finally:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()


def _parts_of(labels: Tensor | MixedLabels) -> list[Tensor]:
    return [labels.first, labels.second, labels.weight] if isinstance(labels, MixedLabels) else [labels]


def _sampled(*tensors: Tensor) -> dict[str, Any]:
    """A digest of all, some numbers of them, and the mean and the standard deviation of the first few."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    numbers = torch.cat([tensor.detach().flatten().to(torch.float64) for tensor in tensors])
    places = torch.linspace(0, len(numbers) - 1, NUM_SAMPLES).round().to(torch.int64)
    moments = [(tensor.double().mean().item(), tensor.double().std(correction=0).item()) for tensor in tensors[:4]]
    return {
        "digest": digest.hexdigest(),
        "samples": [round(value, 5) for value in numbers[places].tolist()],
        "moments": [[round(value, 5) for value in pair] for pair in moments],
    }


def world() -> dict[str, str]:
    """What bits depend on."""
    try:
        cpus = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in cpus if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    libraries = {library.__name__: library.__version__ for library in (torch, np)}
    return {**libraries, "cpu": cpu, "capability": torch.backends.cpu.get_cpu_capability()}


def record() -> dict[str, Any]:
    """What the version at hand, which must be one without a record of rules, makes of all jobs."""
    if "rules" in Job.model_fields:
        raise SystemExit(f"{accel_trainer.__path__[0]} knows several rules; see the docstring")
    at = ["git", "-C", accel_trainer.__path__[0], "rev-parse", "HEAD"]
    commit = subprocess.run(at, capture_output=True, check=True, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder, materials(Path(folder)):
        outcomes = {name: outcome(name) for name in names()}
    return {"commit": commit, "world": world(), "outcomes": outcomes}


if __name__ == "__main__":
    found = record()
    lines = (f"{json.dumps(name)}: {json.dumps(what)}" for name, what in found.pop("outcomes").items())
    head = json.dumps(found)[:-1]
    Path(sys.argv[1]).write_text(f'{head}, "outcomes": {{\n' + ",\n".join(lines) + "\n}}\n")
