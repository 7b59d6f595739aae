"""What a sweep of degradations costs beside the forward passes that it needs: `python benchmarks/degraded_sweep.py`.

A model that has seen some synthetic photographs is measured under noise, blur, occlusion and ImageNet-C, as
`accel-train evaluate --degrade` does it. Beside it, in the same process: one pass that only loads the images, and
forward passes over images that lie in memory. The goal is a sweep of at most 1.3 times the forward passes that it
needs, one for each different condition, and one loading pass. On a CPU, where forward passes take one core, processor
times are given too, which others on the machine hardly change.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from accel_trainer import Job, Run, train
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.processes import usable_cores
from accel_trainer.data.batch_plan import evaluation_batches
from accel_trainer.data.loader import ImageReader
from accel_trainer.data.occluders.synthetic import make_occluders
from accel_trainer.data.open import open_validation
from accel_trainer.data.pipeline import evaluation_views
from accel_trainer.data.shared_work import on_one_core
from accel_trainer.evaluation.conditions import conditions_of
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import trained_job
from accel_trainer.training.runtime.accelerator import assembly

FORMS, VISIBILITIES = ["mud_splash", "horizontal_bars_04"], [20, 50, 80]
DEGRADATIONS = ["noise", "blur", *(f"occlusion/{form}" for form in FORMS), "imagenet-c"]
SIDES = (375, 500)
PASSES = 3


def photographs(folder: Path, number: int) -> None:
    """Smooth noise, as large as ImageNet's images are on average, of two classes and in both splits."""
    generator = np.random.default_rng(0)
    for index in range(number):
        coarse = generator.integers(0, 256, (12, 16, 3), np.uint8)
        picture = Image.fromarray(coarse).resize(SIDES[::-1], Image.Resampling.BICUBIC)
        for split in ("train", "val"):
            path = folder / "photographs" / split / f"class{index % 2}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path, quality=90)


def seconds(act: Callable[[], object]) -> tuple[float, float]:
    """How long a call takes: by the clock, and of all processors."""
    began, used = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - began, time.process_time() - used


def main() -> None:
    """Print the times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photographs(folder, args.images)
        make_occluders(folder / "masks", FORMS, VISIBILITIES, number=8, report=lambda line: None)
        job = Job(
            name="sweep", architecture=args.architecture, dataset="photographs", data_root=str(folder), num_epochs=1,
            batch_size=args.batch_size, trackers=[], model_dir=str(folder / "run"),
        )  # fmt: skip
        compare(train(job, cpu=args.cpu, progress=False), folder, args.batch_size, cpu=args.cpu)


def compare(run: Run, folder: Path, batch_size: int, *, cpu: bool) -> None:
    """Time the sweep, then its parts by themselves."""
    plan = EvaluationPlan.parse({"degradations": DEGRADATIONS, "occluder_dir": str(folder / "masks")})
    count = len(conditions_of(plan, run.job.dataset).distinct)
    sweep, used = seconds(lambda: run.evaluate_plan(plan))
    job = trained_job(RunFolder(run.path))
    with assembly(job, RunFolder(run.path), cpu=cpu) as parts:
        source = open_validation(job, job.dataset, run.classes)
        reader = ImageReader(source, evaluation_views(job, on_device=True), replace_corrupt=False)
        plans = list(evaluation_batches(len(source.labels), batch_size, 0, 1))
        loading, loading_used = seconds(lambda: list(parts.loader.batches(reader, plans)))
        device = parts.accelerator.device
        model = run.model().to(device)
        images = [batch.inputs.on(device) for batch in parts.loader.batches(reader, plans)]

        def look() -> None:
            with torch.inference_mode(), parts.accelerator.autocast():
                for batch in images:
                    model(batch).cpu()

        def passes() -> None:
            for _ in range(PASSES):
                look()

        is_on_cpu = device.type == "cpu"
        look()  # warm
        whole, whole_used = seconds(lambda: on_one_core(passes)) if is_on_cpu else seconds(passes)
    forward, cores = whole / PASSES, usable_cores()
    needed, needed_used = count * forward + loading, count * whole_used / PASSES + loading_used
    print(f"{run.job.architecture} on {device}, {cores} cores, {len(source.labels)} images of {job.image_size}")
    print(f"{count} different conditions; a forward pass over the images {forward:.3f} s, loading them {loading:.3f} s")
    print(f"forward passes and one loading pass {needed:.1f} s, the sweep {sweep:.1f} s: {sweep / needed:.2f} times")
    if is_on_cpu:
        least = max(needed_used, used / cores) / needed_used
        print(f"processor time: {needed_used:.1f} s of these, {used:.1f} s of the whole sweep, with all that degrades")
        print(f"on {cores} cores that nobody else uses: {least:.2f} times at least")


if __name__ == "__main__":
    main()
