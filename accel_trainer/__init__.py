"""accel-train: a folder of job files in, trained and comparable models out.

Scripts and notebooks import from here (docs/python.md). Nothing is loaded before one of the names is used.
"""


def _leave_current_folder() -> None:
    """`python -m accel_trainer...` puts the current folder before Python's own modules: nothing of it may hide one of
    them. In a checkout in which nothing is installed, this package is there itself."""
    import sys

    is_ours = sys.argv[:1] == ["-m"] and any(word.partition(".")[0] == "accel_trainer" for word in sys.orig_argv)
    if is_ours and not sys.flags.safe_path and not __file__.startswith(f"{sys.path[0]}/accel_trainer/"):
        del sys.path[0]


_leave_current_folder()

from typing import TYPE_CHECKING, Any  # noqa: E402 - the folder may have a module of this name

if TYPE_CHECKING:
    from accel_trainer.api.public import (
        AccelTrainError,
        Export,
        InvalidJob,
        Job,
        Migration,
        Queue,
        Run,
        TrainingFailed,
        UserError,
        load_export,
        load_pretrained,
        load_run,
        load_runs,
        migrate,
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
    "Export",
    "InvalidJob",
    "Job",
    "Migration",
    "Queue",
    "Run",
    "TrainingFailed",
    "UserError",
    "__version__",
    "load_export",
    "load_pretrained",
    "load_run",
    "load_runs",
    "migrate",
    "train",
]
__version__ = "0.2.0"
