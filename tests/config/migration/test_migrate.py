"""Old words become today's by a table, with a reason each; what is no old word stays, and nothing is guessed."""

import json
from pathlib import Path
from typing import Any

import pytest
from published_jobs import published_jobs

import accel_trainer
from accel_trainer import InvalidJob, Job, migrate
from accel_trainer.config import read_job
from accel_trainer.config.migration.old_words import OLD_WORDS
from accel_trainer.config.parameters import DEFAULT_SGD


def today(**old: Any) -> dict[str, Any]:
    """What an old file has become, less what its silence meant."""
    migrated = dict(migrate({"architecture": "resnet18", "batch_size": 64, **old}).job)
    assert Job(**{**migrated, "after": ["what it starts from"]}).architecture == migrated["architecture"]
    return {key: value for key, value in migrated.items() if key not in ("architecture", "batch_size", "eval_crop")}


def refusals(**old: Any) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        migrate({"architecture": "resnet18", **old})
    return caught.value.problems


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"transfer": True, "starting_params": "a/b.pt"},
            {"finetune": True, "finetune_args": {"starting_params": "a/b.pt"}},
        ),
        ({"starting_params": "a/b.pt"}, {"finetune": True, "finetune_args": {"starting_params": "a/b.pt"}}),
        (
            {"finetune": True, "starting_params": None, "freeze_layers": ["V1", "V2"], "transfer_dir": "unocc"},
            {"finetune": True, "finetune_args": {"freeze_modules": ["V1", "V2"], "finetune_dir": "unocc"}},
        ),
        (
            {"transfer": True, "finetune_args": {"starting_params": "a/b.pt"}, "freeze_layers": "V1"},
            {"finetune": True, "finetune_args": {"starting_params": "a/b.pt", "freeze_modules": ["V1"]}},
        ),
        # The whole file of a network that was not fine-tuned.
        (
            {"finetune": False, "starting_params": None, "finetune_dir": "x", "freeze_modules": ["V1"]},
            {"finetune": False},
        ),
        ({"transfer": False}, {"finetune": False}),
        ({"finetune": True, "finetune_args": {"freeze_layers": ["V1"], "transfer_dir": "x"}},
         {"finetune": True, "finetune_args": {"freeze_modules": ["V1"], "finetune_dir": "x"}}),
        *(
            ({"finetune": True, "finetune_args": {"starting_params": "a.pt", word: "layer1"}},
             {"finetune": True, "finetune_args": {"starting_params": "a.pt", "freeze_modules": ["layer1"]}})
            for word in ("freeze_layers", "freeze_modules")
        ),
        ({"identifier": "occ-nat"}, {"model_dir": "models/resnet18/occ-nat"}),
        ({"identifier": "occ-nat", "model_dir": "~/runs/a"}, {"model_dir": "~/runs/a"}),
        ({"swa_args": {"start": 8, "swa_lr": 0.05}}, {"swa": {"start": 8, "swa_lr": 0.05}}),
        ({"swa": True, "swa_args": {"start": 8}}, {"swa": {"start": 8}}),
        ({"swa": False, "swa_args": {"start": 8}}, {"swa": False}),
        (
            {"Occlusion": {"type": ["a", "b"], "coverage": [0.1, 0.7], "prop_occluded": 0.8, "colour": "random"}},
            {"Occlusion": {"form": ["a", "b"], "visibility": [0.9, 0.3], "probability": 0.8, "color": "random"}},
        ),
        ({"Occlusion": {"form": "a", "coverage": 0}}, {"Occlusion": {"form": "a", "visibility": 1}}),
        (
            {"Occlusion": {"form": "a"}, "coverage": 0.3, "prop_occluded": 0.5},
            {"Occlusion": {"form": "a", "visibility": 0.7, "probability": 0.5}},
        ),
        ({"blur_sigmas": [1, 2, 4], "blur_prob": 0.8}, {"Blur": {"sigmas": [1, 2, 4], "probs": 0.8}}),
        ({"Blur": {"sigmas": [1, 2], "probs": 0.8, "sequence": False}}, {"Blur": {"sigmas": [1, 2], "probs": 0.8}}),
        (
            {"Blur": {"sigmas": [2, 0], "probs": 1, "sequence": True}},
            {"Blur": {"sigmas": [2, 0], "probs": 1}, "video": True},
        ),
        ({"cutmix": True, "cutmix_args": {"prob": 1.0, "alpha": 1, "beta": 1}}, {"cutmix": {"alpha": 1}}),
        ({"cutmix": False, "cutmix_args": {"alpha": 1}}, {"cutmix": False}),
        ({"amp": "False", "mixup": "None", "swa": "None",
          "optimizer_args": {"lr": 0.1, "nesterov": "True", "momentum": 0.9, "weight_decay": 0}},
         {"amp": False, "mixup": None, "swa": None,
          "optimizer_args": {"lr": 0.1, "nesterov": True, "momentum": 0.9, "weight_decay": 0}}),
        ({"description": "None"}, {"description": "None"}),
    ],
)  # fmt: skip
def test_an_old_word_stands_at_its_place_of_today(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert today(**old) == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cornet-s", "cornet_s"),
        ("cornet-rt", "cornet_rt"),
        ("CORnet-Z", "cornet_z"),
        ("resnet101", "resnet101"),
        ("my-lab", "my-lab"),
    ],
)
def test_an_old_name_of_an_architecture_is_todays(old: str, new: str) -> None:
    assert migrate({"architecture": old}).job["architecture"] == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("default", "default"),
        ("standard", "default"),
        ("weak-resize", "default-weak-resize"),
        ("blur-weak-resize", "default-weak-resize"),
        ("contrastive-blur", "contrastive"),
        ("weak-resize-no-blur-contrastive", "contrastive-weak-resize-no-blur"),
        ("contrastive-no-blur-weak-resize", "contrastive-no-blur-weak-resize"),
        ("none", "default"),
        ("none-weak-resize", "default-weak-resize"),
        ("none-contrastive", "contrastive"),
    ],
)
def test_the_words_of_a_transform_are_what_the_older_program_saw_in_them(old: str, new: str) -> None:
    job = migrate({"architecture": "resnet18", "transform_type": old, "Blur": {"sigmas": [1], "probs": 1}}).job
    assert job["transform_type"] == new
    assert Job(**job).transform_type == new


def test_what_an_old_file_left_out_is_written_where_it_means_another_thing_today() -> None:
    migrated = migrate({"architecture": "resnet18"})
    assert migrated.job["batch_size"] == "auto"
    assert migrated.job["eval_crop"] == 1.0
    assert any(
        "batch_size: added auto; without a batch_size the largest that fits was taken" in c for c in migrated.changes
    )
    # All other defaults are those of then.
    assert Job(**migrated.job).optimizer_args == DEFAULT_SGD
    given = migrate({"architecture": "resnet18", "batch_size": 32}).job
    assert given["batch_size"] == 32


def test_arguments_of_sgd_that_an_old_file_left_out_were_torchs_own() -> None:
    """An archived file trains with a learning rate and a weight decay, and so without momentum."""
    job = migrate(
        {"architecture": "resnet18", "optimizer": "SGD", "optimizer_args": {"lr": 0.1, "weight_decay": 1e-4}}
    ).job
    assert job["optimizer_args"] == {"lr": 0.1, "weight_decay": 1e-4, "momentum": 0}
    adam = {"architecture": "resnet18", "optimizer": "AdamW", "optimizer_args": {"lr": 0.001}}
    assert migrate(adam).job["optimizer_args"] == {"lr": 0.001}


def test_fourier_noise_of_then_was_the_modulus() -> None:
    noise = {"noise_types": ["fourier", "gaussian"], "ssnrs": [0.2, 0.4], "probs": 0.8}
    assert today(Noise=noise)["Noise"] == {**noise, "fourier_part": "modulus"}
    assert today(Noise={**noise, "fourier_part": "real"})["Noise"]["fourier_part"] == "real"
    assert today(Noise={**noise, "noise_types": "gaussian"})["Noise"] == {**noise, "noise_types": "gaussian"}


def test_modules_that_are_frozen_are_noted_as_what_was_loaded() -> None:
    args = {"starting_params": "a.pt", "freeze_modules": ["layer1"], "finetune_dir": "x"}
    (note,) = migrate({"architecture": "resnet18", "batch_size": 8, "finetune": True, "finetune_args": args}).notes
    assert "only these modules were loaded" in note
    (note,) = migrate(
        {"architecture": "resnet18", "finetune": True, "finetune_args": {**args, "freeze_modules": []}}
    ).notes
    assert "an empty list meant that nothing was loaded then" in note


@pytest.mark.parametrize("none", [{}, {"freeze_modules": None}])
def test_of_a_fine_tuned_job_that_freezes_nothing_nothing_is_noted(none: dict[str, Any]) -> None:
    """All that fitted was loaded then, as today."""
    old = {"architecture": "resnet18", "finetune": True, "finetune_args": {"starting_params": "a.pt", **none}}
    assert not migrate(old).notes


RECURRENT = {"architecture": "cornet-rt", "architecture_args": {"return_cycles": "all"}}


def test_the_loss_of_then_was_the_mean_over_all_cycles() -> None:
    """Logits (batch, cycles, classes) were flattened with repeated targets, whatever loss_cycle said."""
    migrated = migrate(RECURRENT)
    assert migrated.job["loss_cycle"] == "uniform"
    assert any(one.startswith("loss_cycle: added uniform; the loss was the mean") for one in migrated.changes)
    assert any(one.startswith("loss_cycle: accuracy was that of all cycles then") for one in migrated.notes)
    assert migrate(migrated.job).is_todays
    for given in (0, -1):
        migrated = migrate({**RECURRENT, "loss_cycle": given})
        assert migrated.job["loss_cycle"] == given
        assert any(one.startswith("loss_cycle: it was not looked at then") for one in migrated.notes)
    for other in (
        {"architecture": "cornet-rt"},
        {"architecture": "cornet-rt", "architecture_args": {"return_cycles": "last"}},
        {**RECURRENT, "criterion": "SimCLRLoss", "num_views": 2},
    ):
        migrated = migrate(other)
        assert "loss_cycle" not in migrated.job
        assert not any("cycle" in one for one in migrated.notes)


def test_of_two_heads_the_first_was_for_classes() -> None:
    """And the second for the contrastive loss, which is the last, today's default."""
    old = {"architecture": "cornet-s-custom", "architecture_args": {"out_channels": 2}}
    assert migrate(old).job["loss_cycle"] == 0
    assert migrate({**old, "loss_cycle": 1}).job["loss_cycle"] == 1
    assert "loss_cycle" not in migrate({**old, "criterion": "SimCLRLoss", "num_views": 2}).job


def test_an_old_name_beside_a_parameter_of_today_is_migrated_without_old_defaults() -> None:
    """What `validate` sends here has to come out as a job of today."""
    old = {"architecture": "cornet-s", "seed": 1, "transform_type": "standard"}
    migration = migrate(old)
    assert migration.job == {"architecture": "cornet_s", "seed": 1, "transform_type": "default"}
    assert len(migration.changes) == 2
    assert migrate(migration.job).is_todays


def test_a_fine_tuned_run_keeps_its_folder() -> None:
    """The older program added finetune_dir to model_dir only where it was not its end."""
    args = {"finetune_dir": "occ-nat", "starting_params": "a/params/043.pt"}
    for folder in ("runs/a/occ-nat", "runs/a"):
        job = migrate({"architecture": "resnet18", "finetune": True, "finetune_args": args, "model_dir": folder}).job
        assert str(Job(**job).run_path) == "runs/a/occ-nat"


@pytest.mark.parametrize("probs", [0.5, [0.2, 0.3, 0.5]])
def test_each_frame_of_a_video_had_its_blur(probs: Any) -> None:
    """The frames were made of the sigmas alone; those of validation were single images without blur."""
    old = {"architecture": "cornet_rt", "video": True, "Blur": {"sigmas": [4, 2, 0], "probs": probs}}
    migrated = migrate(old)
    assert migrated.job["Blur"] == {"sigmas": [4, 2, 0], "probs": 1}
    assert any(
        one.endswith("each frame of a video had its blur always, whatever probs said") for one in migrated.changes
    )
    assert any(one.startswith("video: validation showed single images without blur then") for one in migrated.notes)
    assert migrate({**old, "video": False}).job["Blur"] == old["Blur"]
    assert migrate(migrated.job).is_todays


def test_no_augmentation_was_the_default_one() -> None:
    (change,) = [
        one for one in migrate({"architecture": "resnet18", "transform_type": "none"}).changes if "none" in one
    ]
    assert change.startswith("transform_type: none -> default; all but contrastive was random crop and flip")
    # What names a parameter of today's program means its none.
    assert migrate({"architecture": "resnet18", "transform_type": "none", "seed": 1}).is_todays


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"randomerase": True}, {"randomerase": 1}),
        ({"randomerase": 0}, {"randomerase": 0}),
        ({"Occlusion": {"form": "a", "color": [[1, 1, 1], [0, 0.5, 0], "random"]}},
         {"Occlusion": {"form": "a", "color": [[255, 255, 255], [0, 128, 0], "random"]}}),
        ({"Occlusion": {"form": "a", "color": [1, 1, 0]}}, {"Occlusion": {"form": "a", "color": [255, 255, 0]}}),
        ({"Occlusion": {"form": "a", "color": [[0, 0, 0], [127, 127, 1]]}},
         {"Occlusion": {"form": "a", "color": [[0, 0, 0], [127, 127, 1]]}}),
        ({"Occlusion": {"form": "a", "views": [1]}}, {"Occlusion": {"form": "a", "views": [0]}}),
        ({"num_views": 2, "Occlusion": {"form": "a", "views": [1]}},
         {"num_views": 2, "Occlusion": {"form": "a", "views": [1]}}),
    ],
)  # fmt: skip
def test_a_value_is_written_as_what_was_done(old: dict[str, Any], new: dict[str, Any]) -> None:
    migrated = migrate({"architecture": "resnet18", "batch_size": 64, **old})
    assert {key: migrated.job[key] for key in new} == new
    assert migrate(migrated.job).is_todays


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ({"class_subset": [0, 3]}, "class_subset: only validation left the other classes out then"),
        ({"batch_dependence": True}, "batch_dependence: only occluders were alike then"),
        ({"view_dependence": True, "num_views": 2}, "view_dependence: it did nothing then"),
    ],
)
def test_what_was_done_otherwise_and_has_no_equal_is_noted(old: dict[str, Any], said: str) -> None:
    (note,) = migrate({"architecture": "resnet18", **old}).notes
    assert note.startswith(said)
    assert not any("today" in one for one in migrate({"architecture": "resnet18", **dict.fromkeys(old)}).notes)


@pytest.mark.parametrize("architecture", ["cornet-s", "cornet_s"])
def test_the_two_meanings_of_head_width_are_named(architecture: str) -> None:
    (line,) = refusals(architecture=architecture, architecture_args={"head_width": 3})
    assert line.startswith("architecture_args.head_width: can be two things: units of hidden layers")
    assert "pooling grid of cornet_s_custom or cornet_s_plus" in line
    custom = {"architecture": "cornet-s-custom", "architecture_args": {"head_width": 3}}
    assert migrate(custom).job["architecture_args"] == {"head_width": 3}


def test_of_cutmix_and_mixup_together_only_cutmix_was_done() -> None:
    assert today(cutmix=True, mixup=True) == {"cutmix": True, "mixup": False}


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ({"freeze_layers": ["V1"]}, "freeze_layers: is for fine-tuning, and the file does not say whether it does"),
        ({"finetune": False, "starting_params": "a/b.pt"}, "starting_params: names weights to start from, but"),
        ({"transfer": True, "finetune": False}, "transfer: is finetune today, which is given too and is false"),
        ({"starting_params": "a", "finetune_args": {"starting_params": "b"}, "finetune": True},
         "starting_params: is finetune_args.starting_params today, which is given too and is b"),
        ({"Occlusion": {"form": "a", "coverage": 20}}, "Occlusion.coverage: is no fraction of the image"),
        ({"Occlusion": {"form": "a", "coverage": "all"}}, "Occlusion.coverage: is no fraction of the image"),
        ({"Occlusion": {"form": "a", "coverage": 0.2, "visibility": 0.2}}, "Occlusion.coverage: is Occlusion."),
        ({"Blur": {"sigmas": [1, 0], "sequence": True}, "video": False}, "Blur.sequence: is true, but video is false"),
        ({"Blur": {"sigmas": [1, 0], "sequence": "yes"}}, "Blur.sequence: is neither true nor false"),
        ({"transform_type": "blur-weak-resize"}, "transform_type: 'blur-weak-resize' is to blur images"),
        ({"cutmix": True, "cutmix_args": {"alpha": 1, "frgrnd": True}}, "cutmix_args: has no equal today"),
        ({"coverage": 0.2, "Occlusion": "bars"}, "coverage: belongs into Occlusion, which is no object"),
        ({"views_class": [0]}, "views_class: unknown key"),
        ({"num_epochs": 0}, "num_epochs: 0 is not allowed"),
        ({"name": "a"}, "name: a job has the name of its file"),
    ],
)  # fmt: skip
def test_what_only_a_guess_could_translate_is_refused(old: dict[str, Any], said: str) -> None:
    assert any(line.startswith(said) for line in refusals(**old)), refusals(**old)


def test_everything_that_cannot_be_translated_is_named_at_once() -> None:
    lines = refusals(freeze_layers=["V1"], views_class=[0], num_epochs=0)
    assert [line.partition(":")[0] for line in lines] == ["freeze_layers", "views_class", "num_epochs"]


@pytest.mark.parametrize("word", OLD_WORDS, ids=lambda word: word.old)
def test_validate_names_each_old_word_what_it_became_and_the_command(word: Any, tmp_path: Path) -> None:
    content: Any = "x"
    for key in reversed(word.old.split(".")):
        content = {key: content}
    path = tmp_path / "old one.json"
    path.write_text(json.dumps({"architecture": "resnet18", **content}))
    with pytest.raises(InvalidJob) as caught:
        read_job(path)
    lines = [line for line in caught.value.problems if f": {word.old}: " in line]
    assert len(lines) == 1, caught.value.problems
    assert f"a word of older files; it {word.became}; accel-train migrate '{path}' writes today's job" in lines[0]
    is_missing = any("Occlusion.form: missing" in line for line in caught.value.problems)
    assert is_missing == (word.old.startswith("Occlusion.") and word.old != "Occlusion.type")


def test_the_python_api_is_told_of_the_function() -> None:
    with pytest.raises(InvalidJob, match=r"accel_trainer\.migrate writes today's job"):
        Job(architecture="resnet18", identifier="x")


@pytest.mark.parametrize("name", published_jobs())
def test_a_published_job_is_a_job_of_today_after_it(name: str) -> None:
    old = published_jobs()[name]
    migrated = migrate(old)
    job = Job(**migrated.job, name=name)
    assert {key: migrated.job[key] for key in old} == old
    assert job.num_epochs == old["num_epochs"]
    assert job.batch_size == old["batch_size"]
    assert job.eval_crop == 1.0
    assert len(migrated.changes) == 1


OLD_JOBS: list[dict[str, Any]] = [
    *published_jobs().values(),
    {"architecture": "cornet-s", "identifier": "a", "transfer": True, "starting_params": "x/y.pt"},
    {"architecture": "resnet18", "cutmix": True, "mixup": True, "transform_type": "standard"},
    {"architecture": "resnet18", "finetune": True, "model_dir": "a/x/x", "finetune_args": {"finetune_dir": "x"}},
    {"architecture": "resnet18", "optimizer_args": {"lr": 0.1}, "swa_args": {"start": 3}},
]


@pytest.mark.parametrize("old", OLD_JOBS)
def test_migrating_what_is_migrated_changes_nothing(old: dict[str, Any]) -> None:
    once = migrate(old)
    again = migrate(once.job)
    assert again.is_todays, again.changes
    assert again.job == once.job


def test_what_is_given_stays_as_it_is() -> None:
    old = {"architecture": "resnet18", "Occlusion": {"type": "a", "coverage": 0.1}}
    migrate(old)
    assert old == {"architecture": "resnet18", "Occlusion": {"type": "a", "coverage": 0.1}}


def test_a_file_of_today_keeps_todays_defaults() -> None:
    """`seed` is a parameter that the older program had not: this file was never one of its."""
    migrated = migrate({"architecture": "resnet18", "seed": 3})
    assert migrated.is_todays
    assert migrated.job == {"architecture": "resnet18", "seed": 3}
    assert "seed is of today's program" in migrated.notes[0]


def test_a_file_with_the_habits_of_python_is_read_where_there_is_no_doubt(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(
        "{'architecture': 'resnet18',  # ours\n 'amp': True, 'swa': None, 'class_subset': (0, 1,), 'batch_size': 8}"
    )
    migrated = migrate(path)
    assert {"amp": True, "swa": None, "class_subset": [0, 1]}.items() <= migrated.job.items()
    assert "line 2, column 9: True is Python; in JSON it is true" in migrated.changes
    path.write_text('{"architecture": "resnet18" "amp": true}')
    with pytest.raises(InvalidJob, match="line 1, column 28: a comma is missing here"):
        migrate(path)


def test_a_text_of_another_encoding_is_read_by_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_bytes('{"architecture": "resnet18", "batch_size": 8}'.encode("utf-16"))
    assert "is UTF-16 text; save the file as UTF-8" in migrate(path).changes


def test_it_is_public_and_needs_no_torch() -> None:
    assert accel_trainer.migrate is migrate
    assert "migrate" in accel_trainer.__all__
