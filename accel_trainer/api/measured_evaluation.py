"""What was measured of a run after its training: trials, figures and curves, for scripts and notebooks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel_trainer.core.errors import UserError
from accel_trainer.run.evaluations import EvaluationFolder, EvaluationRecord, read_evaluation

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from accel_trainer.measures.trials import Trials


class MeasuredEvaluation:
    """An evaluation of a run in its folder, which may be complete or not. computed: how many answers, an image under a
    condition each, the call that gave this has computed. Every property raises UserError for what is not there."""

    def __init__(self, folder: EvaluationFolder, computed: int = 0) -> None:
        self._folder, self.computed = folder, computed

    def __repr__(self) -> str:
        return f"MeasuredEvaluation({str(self.path)!r}{'' if self.record.complete else ', not complete'})"

    @property
    def path(self) -> Path:
        """The folder, with trials.parquet, summary.csv, curves.png, curves.pdf and evaluation.json."""
        return self._folder.path

    @property
    def record(self) -> EvaluationRecord:
        """evaluation.json: the plan, what was measured, versions, corrupt images, digests of the pixels."""
        if (record := read_evaluation(self._folder)) is None:
            raise UserError("there is no evaluation", where=self._folder.record)
        return record

    @property
    def trials(self) -> "pd.DataFrame":
        """A row for each image, condition and cycle: image, true_class, response, correct, observer, the conditions,
        entropy. Probabilities are left out, which may not fit into memory: `table` has them."""
        import pandas as pd

        from accel_trainer.measures.trials_file import LISTS, open_parquet

        self._require_complete()
        names = [name for name in open_parquet(self._folder.trials).schema_arrow.names if name not in LISTS]
        return pd.read_parquet(self._folder.trials, columns=names)

    def table(self, *, probabilities: bool = True) -> "Trials":
        """The trials as the functions of `accel_trainer.measures` take them. All are in memory."""
        from accel_trainer.measures.trials_file import read_trials

        self._require_complete()
        return read_trials(self._folder.trials, probabilities=probabilities)

    @property
    def summary(self) -> "pd.DataFrame":
        """Figures in long form: a row for each condition, cycle and metric, with value, low, high and n. Levels are
        texts."""
        import pandas as pd

        self._require_complete()
        numbers = {"value": float, "low": float, "high": float, "n": int, "cycle": "Int64"}
        found = pd.read_csv(self._folder.summary, dtype=str, keep_default_na=False)
        for name, kind in numbers.items():
            found[name] = pd.to_numeric(found[name]).astype(kind)
        return found

    def plot(self) -> "Figure":
        """Accuracy over the levels of each degradation, with its 95% interval. Raises UserError where images were not
        degraded."""
        from accel_trainer.report.condition_curves import condition_curves

        self._require_complete()
        if (figure := condition_curves(self._folder, None)) is None:
            raise UserError("no image was degraded: there are no curves", where=self.path)
        return figure

    def as_row(self) -> dict[str, Any]:
        """What the command line prints: plain values, with the accuracies of all conditions."""
        from accel_trainer.measures.accuracy import accuracy
        from accel_trainer.measures.figures import records
        from accel_trainer.measures.trials_file import trial_blocks

        record = self.record
        return {
            "folder": str(self.path),
            "computed": self.computed,
            "images": record.images,
            "corrupt": list(record.corrupt),
            "degraded_sha256": record.degraded_sha256,
            "figures": records(accuracy(trial_blocks(self._folder.trials, probabilities=False))),
        }

    def _require_complete(self) -> None:
        if not self.record.complete:
            raise UserError("is not complete", where=self.path, hint="the same evaluation, called again, goes on")
