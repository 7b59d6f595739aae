"""What is wrong with an evaluation, found before it is begun."""

from pathlib import Path
from typing import Any

from accel_trainer.config import ResolvedJob
from accel_trainer.config.evaluation import EvaluationPlan
from accel_trainer.core.mistakes import Mistakes
from accel_trainer.data.open import open_validation
from accel_trainer.evaluation.conditions import conditions_of
from accel_trainer.evaluation.owned_folder import require_same_plan
from accel_trainer.evaluation.run_plan import refuse_embeddings
from accel_trainer.evaluation.trained_model import with_data_in
from accel_trainer.run.evaluations import EvaluationFolder
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import needs_all_classes, trained_classes, trained_job


def check_plan(plan: EvaluationPlan, run: RunFolder | None) -> dict[str, Any]:
    """What an evaluation comes to; of a run that is not trained yet (None), only what does not depend on that. Raises
    UserError, with all mistakes that do not follow from each other."""
    mistakes = Mistakes()
    job = None if run is None else mistakes.of(lambda: trained_job(run))
    if run is not None:
        folder = EvaluationFolder(run.evaluations / plan.folder_name)
        mistakes.of(lambda: require_same_plan(folder, plan))
    classes, images = None, None
    if run is not None and job is not None:
        classes = mistakes.of(lambda: _classes(run, job))
        if classes is not None and plan.degraded_set is None:
            images = mistakes.of(lambda: _num_images(plan, run, job, classes))
    dataset = plan.dataset or ("" if job is None else job.dataset)
    conditions = mistakes.of(lambda: conditions_of(plan, dataset, classes))
    if conditions is not None and conditions.stored:
        images = len(conditions.stored[0].labels)
    mistakes.raise_found()
    return {
        "weights": plan.weights,
        "evaluation": plan.folder_name,
        "images": images,
        "conditions": None if conditions is None else len(conditions.shown),
    }


def _classes(run: RunFolder, job: ResolvedJob) -> list[str]:
    refuse_embeddings(job, run)
    return trained_classes(run)


def _num_images(plan: EvaluationPlan, run: RunFolder, job: ResolvedJob, classes: list[str]) -> int:
    name = plan.dataset or job.dataset
    there = with_data_in(job, None if plan.data_root is None else Path(plan.data_root))
    return len(open_validation(there, name, classes, needs_all=needs_all_classes(run, job, name)).labels)
