"""A plugin of Brain-Score (brain-score/vision, `brainscore_vision/models/<name>`)."""

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

import accel_trainer.zoo
from accel_trainer.core.errors import UserError
from accel_trainer.export.areas import areas_of, layers_to_choose_from, times_of
from accel_trainer.export.facts import Facts, facts_of
from accel_trainer.export.folder import sha256, write_json
from accel_trainer.export.form import ExportOptions, Form, Use
from accel_trainer.export.preprocessing import Preprocessing
from accel_trainer.export.source import WEIGHTS, Source
from accel_trainer.training.meta_model import cycle_axis
from accel_trainer.zoo import registry, timm_models

ABOUT = "brain_score.json"
VISUAL_DEGREES = 8
# What the modules of the zoo are imported by, here and in a plugin.
_ZOO, _ZOO_THERE = "from accel_trainer.zoo.", "from ."
INIT = '''\
"""{identifier}, for Brain-Score."""

from brainscore_vision import model_registry

from .model import commitment

model_registry["{identifier}"] = lambda: commitment("{identifier}")
'''
TEST = '''\
"""That Brain-Score finds the model."""

import brainscore_vision


def test_has_identifier():
    model = brainscore_vision.load_model("{identifier}")
    assert model.identifier == "{identifier}"
'''
USE = """\
import brainscore_vision

model = brainscore_vision.load_model("{identifier}")
"""


def write_brain_score(source: Source, folder: Path, options: ExportOptions) -> Form:
    """The files of a plugin. Raises UserError for clips, and for layers and areas that are none."""
    if source.job.video:
        raise UserError("Brain-Score's images are no clips, and the model takes clips", option="format")
    identifier = re.sub(r"[^0-9A-Za-z_.-]+", "-", source.name).strip("-.") or "model"
    areas = areas_of(source, options.regions)
    times = times_of(source, areas)
    layers, readout = layers_to_choose_from(source, options.layers)
    source.save_weights(folder)
    shutil.copyfile(_standalone("brain_score.py"), folder / "model.py")
    (folder / "__init__.py").write_text(INIT.format(identifier=identifier))
    (folder / "test.py").write_text(TEST.format(identifier=identifier))
    if areas:
        (folder / "region_layer_map").mkdir()
        write_json(folder / "region_layer_map" / f"{identifier}.json", areas)
    about = {
        "identifier": identifier,
        **_how_to_build(source, folder),
        "image_size": source.job.image_size,
        "layers": layers,
        "readout": readout,
        "regions": areas,
        "times": times,
        "cycle_axis": cycle_axis(source.model),
        "visual_degrees": VISUAL_DEGREES,
        "weights_sha256": sha256(folder / WEIGHTS),
        "hub_repository": None,
    }
    write_json(folder / ABOUT, about)
    facts = facts_of(source)
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in _requirements(about["source"], facts)))
    metadata = _metadata(identifier, source, facts, options, is_recurrent=bool(times) or source.num_cycles > 1)
    (folder / "metadata.yaml").write_text(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True))
    return Form(
        "pytorch", [Use("With Brain-Score", USE.format(identifier=identifier))], {}, ["brain-score"], _notes(about)
    )


def _standalone(name: str) -> Path:
    return Path(__file__).parent / "standalone" / name


def _how_to_build(source: Source, folder: Path) -> dict[str, Any]:
    """By what model.py builds the architecture; modules of the zoo are copied, so that it needs no package for them."""
    name = source.architecture
    if registry.is_users_own(name):
        package = name.partition(":")[0].partition(".")[0]
        return {"source": "accel-train", "architecture": name, "arguments": {}, "allow": package}
    built = {"architecture": name.removeprefix(timm_models.PREFIX), "arguments": source.arguments}
    if name.startswith(timm_models.PREFIX):
        return {"source": "timm", **built}
    if registry.is_of_torchvision(name):
        return {"source": "torchvision", **built}
    module = registry.ZOO[name].__module__.rpartition(".")[2]
    (folder / "zoo").mkdir()
    (folder / "zoo" / "__init__.py").write_text('"""Of accel-train (Apache-2.0)."""\n')
    _copy_with_imports(module, folder / "zoo")
    return {"source": "zoo", "module": module, **built}


def _copy_with_imports(module: str, folder: Path) -> None:
    text = (Path(accel_trainer.zoo.__path__[0]) / f"{module}.py").read_text()
    for other in re.findall(rf"^{re.escape(_ZOO)}(\w+) import", text, re.MULTILINE):
        _copy_with_imports(other, folder)
    (folder / f"{module}.py").write_text(text.replace(_ZOO, _ZOO_THERE))


def _requirements(built_by: str, facts: Facts) -> list[str]:
    """At least in the versions of the training."""
    names = ["torch", "torchvision", "numpy", "pillow", "safetensors", "huggingface_hub"]
    names += {"timm": ["timm"], "accel-train": ["accel-train"]}.get(built_by, [])
    loose = ("numpy", "pillow", "huggingface_hub")  # which Brain-Score itself may want older
    return [name if name in loose or name not in facts.packages else f"{name}>={_public(facts.packages[name])}"
            for name in names]  # fmt: skip


def _public(version: str) -> str:
    return version.partition("+")[0]


def _metadata(
    identifier: str, source: Source, facts: Facts, options: ExportOptions, *, is_recurrent: bool
) -> dict[str, Any]:
    """metadata.yaml, by version 2.0 of its schema."""
    job, size = source.job, source.job.image_size
    rate = facts.job.get("optimizer_args", {}).get("lr")
    entry: dict[str, Any] = {
        "model": {
            "display_name": source.name[:200],
            "architecture": {"family": source.architecture[:100]},
            "parameter_count": source.parameters,
            "parameter_count_exact": True,
            "recurrent": is_recurrent,
            "input_resolution": {"channels": 3, "height": size, "width": size},
            "visual_degrees": VISUAL_DEGREES,
            "supervision": {"type": "self-supervised" if job.criterion == "SimCLRLoss" else "supervised"},
        },
        "training": {
            "loss": facts.job.get("criterion"),
            "learning_rate": None if rate is None else str(rate),
            "batch_size": str(facts.job.get("batch_size")),
            "preprocessing": _resizing(source.preprocessing),
        },
        "data": {"training_datasets": [{"identifier": "other", "name": facts.dataset, "role": "training"}]},
        "io": {"modality": "vision"},
        "provenance": {"checkpoint": f"{source.word} weights of {source.name}"[:500]},
    }
    if source.not_trained_here is not None:  # how they were trained is not known here
        del entry["data"], entry["model"]["supervision"]
        entry["training"] = {"preprocessing": entry["training"]["preprocessing"]}
    if options.license:
        entry["legal"] = {"license": options.license}
    return {"schema_version": "2.0", "domain": "vision", "models": {identifier: entry}}


def _resizing(about: Preprocessing) -> str:
    sides = "both sides" if about.squash else "shorter side"
    return f"{sides} {about.resize_shorter_side_to} ({about.interpolation}), center crop {about.image_size}"


def _notes(about: dict[str, Any]) -> list[str]:
    notes = ["The folder goes to `brainscore_vision/models/`; its own README.md and config.json do no harm there."]
    notes.append(
        "Weights are too large for that repository: upload them to the hub, and name it as `hub_repository` in "
        f"`{ABOUT}`; `model.safetensors` in the folder is used where it is there."
    )
    if not about["regions"]:
        notes.append("No layer stands for an area: Brain-Score chooses from `layers` by its public benchmarks.")
    if about["times"]:
        notes.append("Each cycle stands for a time after the onset of an image (`times`, in ms): a choice, not a fit.")
    return notes
