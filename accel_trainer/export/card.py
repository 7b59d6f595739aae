"""README.md of an export: a model card, filled from the run, in the form of the Hugging Face hub."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from accel_trainer import __version__
from accel_trainer.core.text import flatten, format_value, one_line
from accel_trainer.data.augment.resizing import Filter
from accel_trainer.export.facts import Facts
from accel_trainer.export.form import ExportOptions, Form
from accel_trainer.export.preprocessing import Preprocessing
from accel_trainer.export.source import Source
from accel_trainer.report.documents import as_markdown, in_markdown

# What the hub calls the scores of performance.csv.
_ON_THE_HUB = {"acc1": ("accuracy", "Top-1 accuracy (%)"), "acc5": ("top_5_accuracy", "Top-5 accuracy (%)")}
_LONGEST_VALUE = 120


def card(source: Source, facts: Facts, form: Form, options: ExportOptions) -> str:
    """The text of README.md. The same run gives the same text."""
    parts = [
        _front(source, facts, form, options),
        f"# {in_markdown(one_line(source.name))}",
        _first_words(source, facts),
        "## How to load it",
        "In this folder, or with its path in the place of `.`:",
        *(f"### {use.title}\n\n```python\n{use.code}```" for use in form.uses),
        *(["## To be known", _items(form.notes)] if form.notes else []),
        "## Input and output",
        _preprocessing(source),
        "## Results",
        _results(source, facts, form),
        *_origins(source, facts),
        "## How to cite",
        _citation("Trained" if source.not_trained_here is None else "Evaluated and exported"),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _front(source: Source, facts: Facts, form: Form, options: ExportOptions) -> str:
    """The hub's metadata. A license only where one was given: what the data allow is not known here."""
    task = "image-feature-extraction" if source.job.is_contrastive else "image-classification"
    front: dict[str, Any] = {"license": options.license} if options.license else {}
    front |= {"library_name": form.library, "pipeline_tag": task}
    front["tags"] = list(dict.fromkeys([task, *form.tags, "accel-train"]))
    if facts.hub_dataset and source.not_trained_here is None:
        front["datasets"] = [facts.hub_dataset]
    if measured := {name: facts.scores[name] for name in _ON_THE_HUB if name in facts.scores}:
        front["metrics"] = [_ON_THE_HUB[name][0] for name in measured]
        front["model-index"] = [_model_index(source, facts, task, measured)]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---"


def _model_index(source: Source, facts: Facts, task: str, measured: Mapping[str, float]) -> dict[str, Any]:
    metrics = [
        {"type": kind, "name": title, "value": round(measured[name], 3)}
        for name, (kind, title) in _ON_THE_HUB.items()
        if name in measured
    ]
    dataset = {"name": facts.dataset, "type": facts.hub_dataset or facts.dataset, "split": "validation"}
    return {"name": source.name, "results": [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}]}


def _first_words(source: Source, facts: Facts) -> str:
    what = "gives embeddings" if source.job.is_contrastive else f"names {len(source.classes):,} classes"
    if source.not_trained_here is not None:
        return (
            f"`{source.architecture}` with the weights `{one_line(source.not_trained_here)}`, which accel-train "
            f"{__version__} has not trained, only evaluated on {in_markdown(one_line(facts.dataset))}. "
            f"It has {source.parameters:,} parameters and {what}."
        )
    weights = f"the weights `{source.word}`" + ("" if source.epoch is None else f", of epoch {source.epoch}")
    return (
        f"`{source.architecture}`, trained on {in_markdown(one_line(facts.dataset))} with accel-train {__version__}. "
        f"It has {source.parameters:,} parameters and {what}. These are {weights}."
    )


def _items(lines: Any) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _preprocessing(source: Source) -> str:
    about = source.preprocessing
    sides = "Both sides of an image are" if about.squash else "The shorter side of an image is"
    whose = "in Pillow" if about.interpolation == Filter.BICUBIC else "in torch"
    lines = [
        f"{sides} resized to {about.resize_shorter_side_to} pixels "
        f"({about.interpolation}, antialiased, on bytes, {whose}).",
        f"The center of {about.image_size} x {about.image_size} pixels is cropped.",
        f"Red, green and blue in 0..1 are normalized by the mean {list(about.mean)} "
        f"and the standard deviation {list(about.std)}.",
        *_of_clips(about),
        "`preprocessing.py` does all of that with the bits of the training's validation, but for the decoding of "
        "JPEGs, which may differ in other versions of libjpeg; `preprocessing.json` has the numbers.",
    ]
    if not source.job.is_contrastive:
        lines.append("`classes.json` has the names of the classes, in the order of the logits.")
    return _items(lines)


def _of_clips(about: Preprocessing) -> Iterator[str]:
    if about.frames is None:
        return
    shape = f"(batch, {about.frames}, 3, {about.image_size}, {about.image_size})"
    yield f"The model takes clips {shape}: here the same image in all {about.frames} frames."
    if about.frame_sigmas is None or about.frame_probs is None:
        return
    sigmas = ", ".join(f"{sigma:g}" for sigma in about.frame_sigmas)
    yield (
        "Before they are normalized, the frames are blurred by Gaussians with these standard deviations, in pixels: "
        f"{sigmas} (`preprocess` gives the same to 1e-5)."
    )
    if any(0 < prob < 1 for prob in about.frame_probs):
        probs = ", ".join(f"{prob:g}" for prob in about.frame_probs)
        yield f"The training has blurred frames with probability only: {probs}. `preprocess` blurs them always."


def _results(source: Source, facts: Facts, form: Form) -> str:
    if facts.scores:
        rows = [[_title(name), value] for name, value in facts.scores.items()]
        text = "On the validation images:\n\n" + as_markdown(["score", "value"], rows, [0, 3])
    else:
        text = "Of these weights no validation is recorded.\n"
    if facts.degraded:
        rows = [[name, value] for name, value in facts.degraded.items()]
        text += "\nUnder degradations, as the mean over their levels:\n\n"
        text += as_markdown(["degradation", "accuracy (%)"], rows, [0, 2])
    if form.checks:
        rows = [[what, f"{value:.1e}"] for what, value in form.checks.items()]
        text += "\nLargest difference of this export's output from the trained model's:\n\n"
        text += as_markdown(["compared", "difference"], rows, [0, 0])
    return text


def _title(score: str) -> str:
    return _ON_THE_HUB[score][1] if score in _ON_THE_HUB else score


def _origins(source: Source, facts: Facts) -> list[str]:
    """Sections with their titles. Of weights that others have trained it is not known here how."""
    if source.not_trained_here is not None:
        return []
    data, training, environment = _data(facts), _training(facts), _environment(facts)
    return ["## Data", data, "## Training", training, "## Environment", environment]


def _data(facts: Facts) -> str:
    text = f"Data set: {in_markdown(one_line(facts.dataset))}."
    if facts.splits:
        rows = [[split, about["classes"], about["images"]] for split, about in sorted(facts.splits.items())]
        text += "\n\n" + as_markdown(["split", "classes", "images"], rows, [0, 0, 0])
    if facts.data_identity:
        text += f"\nDigest of the names of its images and their contents: `{facts.data_identity}`."
    return text


def _training(facts: Facts) -> str:
    rows = [[f"`{key}`", _shortened(value)] for key, value in _flat(facts.job)]
    epochs = "1 epoch" if facts.epochs == 1 else f"{facts.epochs:,} epochs"
    intro = f"{epochs}, {facts.seconds / 3600:.2f} hours of training and validation. The job:"
    return f"{intro}\n\n{as_markdown(['parameter', 'value'], rows, [0, 0])}"


def _flat(job: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in flatten(job).items() if value not in (None, {}, []))


def _shortened(value: Any) -> str:
    text = one_line(format_value(value))
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} ..."


def _environment(facts: Facts) -> str:
    rows = [[key.replace("_", " "), str(value)] for key, value in facts.environment.items()]
    rows += [[name, version] for name, version in facts.packages.items()]
    return as_markdown(["", "version"], rows, [0, 0]) if rows else "Not recorded."


def _citation(done: str) -> str:
    return (
        f"Cite the people who trained this model, its architecture and its data. {done} with:\n\n"
        "```bibtex\n"
        "@software{accel_train,\n"
        "  title   = {accel-train: a queue that trains, measures and compares vision models},\n"
        "  author  = {{The accel-train developers}},\n"
        f"  version = {{{__version__}}}\n"
        "}\n"
        "```"
    )
