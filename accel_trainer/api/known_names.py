"""The names that a job can give to what is built by name, in this installation."""

from accel_trainer.config.fields import TRANSFORM_BASES, TRANSFORM_POLICIES


def known_names() -> dict[str, list[str]]:
    """Of each parameter whose value is such a name; none of timm's models and of users' packages. It imports torch."""
    from accel_trainer.training.objectives.classification import CLASSIFICATION_LOSSES
    from accel_trainer.training.optim.optimizer import OPTIMIZERS
    from accel_trainer.training.optim.schedulers import SCHEDULERS, WARMUPS
    from accel_trainer.zoo.registry import names

    return {
        "architecture": names(),
        "dataset": ["digits", "ILSVRC2012"],
        "transform_type": [*TRANSFORM_BASES, *(f"default-{policy}" for policy in TRANSFORM_POLICIES)],
        "optimizer": sorted(OPTIMIZERS),
        "scheduler": sorted(SCHEDULERS),
        "warmup_scheduler": sorted(WARMUPS),
        "criterion": [*CLASSIFICATION_LOSSES, "SimCLRLoss", "SupConLoss"],
    }
