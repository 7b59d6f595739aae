"""accel-train: a folder of job files in, trained and comparable models out.

Scripts and notebooks import from here (docs/python.md). Nothing is loaded before one of the names is used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accel_trainer.api.public import (
        AccelTrainError,
        InvalidJob,
        Job,
        Queue,
        Run,
        TrainingFailed,
        UserError,
        load_run,
        load_runs,
        train,
    )
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from accel_trainer.api import public

        return getattr(public, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "AccelTrainError",
    "InvalidJob",
    "Job",
    "Queue",
    "Run",
    "TrainingFailed",
    "UserError",
    "__version__",
    "load_run",
    "load_runs",
    "train",
]
__version__ = "0.1.0"
