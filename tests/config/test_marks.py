from collections.abc import Iterator
from typing import Annotated

import pytest
from pydantic import BaseModel

from accel_trainer.api.verdicts import UNCHECKED
from accel_trainer.config import Job
from accel_trainer.config.derived import ARGUMENTS_OF, MARKS, parameters
from accel_trainer.config.diff import MAY_CHANGE, UNREPORTED
from accel_trainer.config.fields import Section
from accel_trainer.config.marks import MODEL, Affects, Mark, PathKind, marks, sections_in
from accel_trainer.config.parameters import DataParameters
from accel_trainer.config.path_checks import PATHS
from accel_trainer.config.schema import NESTED, SECTIONS
from accel_trainer.report.compare import NO_SETTINGS
from accel_trainer.run.load import NOT_NEEDED
from accel_trainer.training.build import DATA_KEYS
from accel_trainer.training.state.restore import AUGMENTED_BY, GROUPED_BY, LOSS_FOLLOWS_FROM, MEASURED_BY
from accel_trainer.training.tune.resolve import RATE_FOLLOWS_FROM

WANDB = {
    "wandb",
    *(
        f"wandb.{key}"
        for key in ("project", "entity", "group", "tags", "mode", "artifact", "histograms", "save_code", "job_type")
    ),
}


def all_sections(section: type[BaseModel] = Job) -> Iterator[type[BaseModel]]:
    yield section
    for field in section.model_fields.values():
        for nested in sections_in(field.annotation):
            yield from all_sections(nested)


@pytest.mark.parametrize("section", dict.fromkeys(all_sections()))
def test_every_parameter_has_exactly_one_mark_of_what_it_affects(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        assert len([part for part in field.metadata if isinstance(part, Mark)]) == 1, name


def test_a_parameter_without_a_mark_is_refused_by_its_name() -> None:
    class Inner(Section):
        depth: int = 1

    class Outer(Section):
        inner: Annotated[Inner | None, MODEL] = None

    with pytest.raises(TypeError, match=r"Inner\.depth has no mark"):
        marks(Outer)


def test_what_may_change_between_attempts_at_one_run_follows_from_marks() -> None:
    assert {
        "accelerate_config",
        "after",
        "allow_changes",
        "augment_on",
        "checkpoint",
        "corrupt_images",
        "data_root",
        "description",
        "eval_sets",
        "degradations",
        "degradation_interval",
        "log_every_steps",
        "degradation_occluders",
        "knn_interval",
        "min_loaded_fraction",
        "model_dir",
        "name",
        "num_epochs",
        "num_processes",
        "num_workers",
        "priority",
        "retries",
        "save_every_minutes",
        "save_interval",
        "stall_timeout",
        "time_limit",
        "trackers",
        "wandb",
    } == MAY_CHANGE


def test_changes_that_are_not_reported_follow_from_marks() -> None:
    assert {
        "after",
        "allow_changes",
        "checkpoint",
        "description",
        "model_dir",
        "name",
        "num_processes",
        "priority",
        "retries",
        "stall_timeout",
        "time_limit",
    } == UNREPORTED
    assert UNREPORTED <= MAY_CHANGE


def test_what_an_optimizer_state_and_its_metrics_depend_on_follows_from_marks() -> None:
    assert {
        "architecture",
        "architecture_args",
        "decay_norm_and_bias",
        "finetune",
        "finetune_args",
        "layer_decay",
        "optimizer",
    } == GROUPED_BY
    assert {
        "class_subset",
        "dataset",
        "eval_crop",
        "eval_resize",
        "image_column",
        "image_size",
        "label_column",
        "loss_cycle",
        "mean",
        "std",
        "video",
    } == MEASURED_BY
    assert {"criterion", "criterion_args"} == LOSS_FOLLOWS_FROM
    # What may change makes no other run: nothing is carried over from it.
    measured_in_training = {*DataParameters.model_fields, "seed", "rules", "loss_cycle"}
    assert measured_in_training - MAY_CHANGE == (AUGMENTED_BY | MEASURED_BY) - MAY_CHANGE
    assert {"batch_size", "optimizer"} == RATE_FOLLOWS_FROM


def test_what_decides_images_and_what_only_training_needs_follow_from_marks() -> None:
    assert set(DATA_KEYS) == {"dataset", "data_root", "class_subset", "image_column", "label_column", "eval_sets"}
    assert {
        "accelerate_config",
        "after",
        "checkpoint",
        "eval_sets",
        "degradations",
        "degradation_interval",
        "log_every_steps",
        "degradation_occluders",
        "finetune",
        "finetune_args",
        "min_loaded_fraction",
        "model_dir",
    } == NOT_NEEDED


def test_what_checks_and_tables_leave_out_follows_from_marks() -> None:
    assert {"description", "model_dir", "seed", "finetune_args.finetune_dir", *WANDB} == UNCHECKED
    assert {
        "architecture",
        "description",
        "finetune_args.finetune_dir",
        "model_dir",
        "num_epochs",
        "primary_metric",
        *WANDB,
    } == NO_SETTINGS


def test_paths_and_arguments_with_defaults_follow_from_marks() -> None:
    assert PATHS == {
        "model_dir": PathKind.PATH,
        "dataset": PathKind.DATASET,
        "data_root": PathKind.PATH,
        "accelerate_config": PathKind.CONFIG,
        "pretrained": PathKind.PATH,
        "Occlusion.occluder_dir": PathKind.PATH,
        "Noise.mean_magnitude_path": PathKind.PATH,
        "finetune_args.starting_params": PathKind.PATH,
        "finetune_args.finetune_dir": PathKind.PATH,
        "eval_sets": PathKind.DATASET,
        "degradation_occluders": PathKind.PATH,
    }
    assert ARGUMENTS_OF == {"optimizer_args": "optimizer", "scheduler_args": "scheduler"}


def test_sections_and_nested_objects_of_the_schema_are_those_of_the_job() -> None:
    assert [section.__name__ for section in SECTIONS] == [
        "ModelParameters",
        "DataParameters",
        "OptimizationParameters",
        "RunParameters",
        "QueueParameters",
    ]
    assert {section.__name__ for section in NESTED} == {
        "DegradationChoice",
        "Mixing",
        "Noise",
        "Blur",
        "Occlusion",
        "FinetuneParameters",
        "SwaParameters",
        "WandbParameters",
    }


def test_a_nested_parameter_affects_what_its_object_affects() -> None:
    for key, mark in MARKS.items():
        assert mark.affects is MARKS[key.partition(".")[0]].affects, key


def test_only_what_affects_the_run_and_its_length_may_change() -> None:
    of_run = parameters(lambda mark: mark.affects is Affects.RUN)
    assert MAY_CHANGE - of_run == {"num_epochs"}
    assert of_run - MAY_CHANGE == {"knn_neighbours"}
