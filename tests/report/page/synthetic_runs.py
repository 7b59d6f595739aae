"""Run folders as trainings leave them, by formula: for the page's tests and for its picture in the docs."""

import csv
import io
import json
import math
import random
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from PIL import Image, ImageDraw

from accel_trainer.config import Job
from accel_trainer.measures.accuracy import accuracy
from accel_trainer.measures.figures import as_csv
from accel_trainer.measures.trials import Trials
from accel_trainer.measures.trials_file import trial_blocks, writing_trials
from accel_trainer.run.evaluations import EvaluationFolder, EvaluationRecord, write_evaluation
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.status import RunState, Status, write_status

CLASSES = ("bear", "bird", "boat", "car", "cat", "chair", "dog", "knife")
LEVELS = ("1", "0.8", "0.6", "0.4", "0.2", "0.1")
ARCHITECTURES = {"resnet18": 0.0, "convnext_tiny": 4.0, "vgg11": -6.0}


def make_runs(folder: Path, number: int, epochs: int, *, evaluated: int = 0, sheets: int = 0) -> list[RunFolder]:
    """So many runs of three architectures, with and without occlusion, two learning rates, and seeds; the first ones
    evaluated under degradations, the first ones with a sample sheet."""
    random_numbers = random.Random(7)
    seeds = range(-(-number // 12))
    recipes = product((0.05, 0.1), (False, True), ARCHITECTURES, seeds)
    runs = []
    for place, (lr, occluded, architecture, seed) in zip(range(number), recipes, strict=False):
        gain = (
            ARCHITECTURES[architecture] + (2.5 if occluded else 0) - 20 * abs(lr - 0.05) + random_numbers.gauss(0, 0.8)
        )
        run = _make_run(folder, architecture, lr, seed, occluded, epochs, gain, random_numbers)
        if place < evaluated:
            _evaluate(run, gain, occluded, random_numbers)
        if place < sheets:
            _sheet(run, place)
        runs.append(run)
    return runs


def _make_run(
    folder: Path,
    architecture: str,
    lr: float,
    seed: int,
    occluded: bool,
    epochs: int,
    gain: float,
    numbers: random.Random,
) -> RunFolder:
    name = f"{architecture}-{'occluded' if occluded else 'plain'}-lr{lr}-{seed}"
    occlusion = {"Occlusion": {"occluder_dir": "occluders", "form": "mudSplash", "visibility": 40}} if occluded else {}
    job = Job.model_validate(
        {"architecture": architecture, "name": name, "seed": seed, "num_epochs": epochs, "optimizer_args": {"lr": lr},
         "model_dir": str(folder / architecture / name), **occlusion}
    )  # fmt: skip
    run = RunFolder(job.run_path)
    run.create()
    run.config.write_text(json.dumps({**job.completed(), "primary_metric": "acc1"}))
    run.environment.write_text(json.dumps({"job": name, "parameters": 1_000_000 + len(architecture)}))
    run.performance.write_text(_table(epochs, gain, lr, numbers))
    write_status(run, Status(state=RunState.FINISHED))
    return run


def _table(epochs: int, gain: float, lr: float, numbers: random.Random) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["epoch", "split", "loss", "acc1", "acc5", "lr", "images_per_s", "seconds"])
    for epoch in range(1, epochs + 1):
        progress = 1 - math.exp(-4 * epoch / epochs)
        rate = lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for split, better, seconds in (("train", 6, 30), ("val", 0, 4)):
            acc1 = min(99.9, (68 + gain + better) * progress + numbers.gauss(0, 1.2 * (1.2 - progress)))
            loss = 3.2 * math.exp(-acc1 / 38) + 0.02
            writer.writerow([epoch, split, f"{loss:.6g}", f"{acc1:.6g}", f"{min(99.9, acc1 + 18):.6g}", f"{rate:.6g}",
                             f"{900 + numbers.gauss(0, 10):.6g}", f"{seconds + numbers.random():.6g}"])  # fmt: skip
    return text.getvalue()


def _evaluate(run: RunFolder, gain: float, occluded: bool, numbers: random.Random) -> None:
    folder = EvaluationFolder(run.evaluations / "occlusion+noise")
    folder.path.mkdir(parents=True)
    conditions = [(name, level) for name in ("noise/gaussian", "occlusion/mudSplash") for level in LEVELS]
    robust = 0.1 if occluded else 0.0
    shares = {
        (name, level): max(0.13, min(0.97, (0.7 + gain / 100) * float(level) ** (0.7 - robust) + robust / 2))
        for name, level in conditions
    }
    with writing_trials(folder.trials) as add:
        for (name, level), share in shares.items():
            add(_trials(name, level, share, numbers))
    folder.summary.write_text(as_csv(accuracy(trial_blocks(folder.trials))))
    plan = {"weights": "best", "dataset": None, "degraded_set": None}
    record = EvaluationRecord(
        plan=plan, measured={"conditions": [f"{name}/{level}" for name, level in conditions]}, observer=run.path.name,
        architecture="net", dataset="digits", epoch=None, images=160, versions={}, complete=True,
    )  # fmt: skip
    write_evaluation(folder, record, run)


def _trials(name: str, level: str, share: float, numbers: random.Random) -> Trials:
    truth = [CLASSES[image % len(CLASSES)] for image in range(160)]
    answers = [one if numbers.random() < share else numbers.choice(CLASSES) for one in truth]
    return Trials.of(
        [f"{place}.png" for place in range(len(truth))], truth, answers, observer="net", classes=CLASSES,
        conditions={"benchmark": name.partition("/")[0], "degradation": name, "level": level},
    )  # fmt: skip


def _sheet(run: RunFolder, number: int) -> None:
    sheet = Image.new("RGB", (420, 260), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for place in range(8):
        x, y = 6 + place % 4 * 102, 17 + place // 4 * 119
        shade = (60 + 20 * place, 90 + (number * 37) % 120, 200 - 15 * place)
        pen.rectangle((x, y, x + 96, y + 96), fill=shade)
        pen.ellipse((x + 20, y + 20 + place, x + 76, y + 70 + place), fill=(255 - shade[0], 220, shade[1]))
        pen.text((x, y + 99), CLASSES[place], (40, 40, 40))
    sheet.save(run.sample_inputs)


def write_people(path: Path, people: Sequence[str] = ("p1", "p2", "p3", "p4")) -> Path:
    """Trials of people under occlusion, as published."""
    header = "subject,stimulus_id,object_class,occluder_class,occluder_color,visibility,prediction,rt,accuracy"
    path.write_text("\n".join([header, *_answers(people)]) + "\n")
    return path


def _answers(people: Sequence[str]) -> Iterator[str]:
    numbers = random.Random(3)
    for person in people:
        for level in LEVELS:
            occluder = "none" if level == "1" else "mudSplash"
            for image in range(20):
                truth = CLASSES[image % len(CLASSES)]
                is_right = numbers.random() < 0.4 + 0.57 * float(level) ** 0.35
                answer = truth if is_right else CLASSES[(image + 1) % len(CLASSES)]
                yield f"{person},{image},{truth},{occluder},black,{level},{answer},0.9,{int(is_right)}"
