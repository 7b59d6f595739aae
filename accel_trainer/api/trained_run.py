"""A run folder for scripts and notebooks: what was trained, how well, and the model itself."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from accel_trainer.config import Job
from accel_trainer.core.allow_imports import imports_allowed
from accel_trainer.core.errors import UserError
from accel_trainer.core.files import expand_path
from accel_trainer.core.processes import Program
from accel_trainer.launch.command import Launch, LaunchOptions, plan_launch
from accel_trainer.launch.machine import this_machine
from accel_trainer.report.compare import Comparison, compare
from accel_trainer.run.evaluations import evaluations_of
from accel_trainer.run.find import runs_below
from accel_trainer.run.folder import RunFolder
from accel_trainer.run.load import run_job, trained_classes, trained_job, trained_weights
from accel_trainer.run.performance import read_performance
from accel_trainer.run.records import read_config
from accel_trainer.run.status import Status, read_status

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from accel_trainer.api.measured_evaluation import MeasuredEvaluation
    from accel_trainer.config.evaluation import EvaluationPlan
    from accel_trainer.data.decode import ImageLike
    from accel_trainer.data.pipeline import ValidationTransform
    from accel_trainer.evaluation.accuracy import Evaluation
    from accel_trainer.evaluation.feature_files import Format
    from accel_trainer.evaluation.features import Pool, Rows, WrittenFeatures
    from accel_trainer.evaluation.probe import Probed
    from accel_trainer.export.write import Format as ExportFormat
    from accel_trainer.export.write import Written
    from accel_trainer.launch.call_worker import WorkerCall


class History(list[dict[str, Any]]):
    """The rows of performance.csv, one for each epoch and split.

    Each has `epoch`, `split`, `loss` and the other scores that were measured (accuracies in percent), `lr`,
    `images_per_s` and `seconds`.
    """

    def to_frame(self) -> "pd.DataFrame":
        """The same as a DataFrame; NaN for what was not measured. Raises UserError where pandas is missing."""
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError("history: a DataFrame needs pandas: pip install pandas") from error
        return pd.DataFrame(list(self))

    def _repr_html_(self) -> str | None:
        """The table that a notebook shows."""
        try:
            return str(self.to_frame().to_html(index=False))
        except UserError:
            return None


class Run:
    """A trained run, or one that is being trained. What changes is read from the folder each time it is asked for.

    The folder may have been moved since. Every property and method raises UserError for a file that cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._folder = RunFolder(expand_path(path))
        read_config(self._folder)

    def __repr__(self) -> str:
        status = self.status
        return f"Run({str(self.path)!r}, {'unknown' if status is None else status.state})"

    @property
    def path(self) -> Path:
        """The run folder, where it is now."""
        return self._folder.path

    @property
    def job(self) -> Job:
        """The job as it was trained, with all defaults, and numbers in the place of `auto` and the like.

        Its `model_dir` is where the run was trained, which `path` may be no more.
        """
        return run_job(self._folder)

    @property
    def status(self) -> Status | None:
        """status.json: state, epoch, best score, error; None where there is none."""
        return read_status(self._folder)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return trained_classes(self._folder)

    @property
    def history(self) -> History:
        """What was measured in each epoch, on each split. Empty before the end of the first epoch."""
        rows = read_performance(self._folder)
        return History(
            {
                "epoch": row.epoch,
                "split": row.split,
                **row.scores,
                "lr": row.lr,
                "images_per_s": row.images_per_s,
                "seconds": row.seconds,
            }
            for row in rows
        )

    @property
    def summary(self) -> Comparison:
        """The run's row in `accel-train compare`, with all parameters of its job in `settings`."""
        return compare([self._folder])[0]

    def plot(self) -> "Figure":
        """The curves of the run, as in performance.png: a figure of matplotlib, for `savefig` or a notebook. Raises
        UserError before the end of the first epoch."""
        from accel_trainer.report.run_figure import About, run_figure
        from accel_trainer.report.style import find_style, styled

        if not (rows := read_performance(self._folder)):
            raise UserError("no epoch has ended yet: there are no curves", where=self.path)
        with styled(find_style()):
            return run_figure(rows, About.of(self._folder, rows))

    def weights(self, name: str | int = "best") -> Path:
        """The file of weights: best, final, ema, swa, or those that were saved after an epoch (0: the initialization).

        It holds a plain state dict, for `safetensors.torch.load_file`.
        """
        return trained_weights(self._folder, trained_job(self._folder), str(name))

    def model(self, weights: str | int = "best", *, allow: str | Iterable[str] = ()) -> "nn.Module":
        """The trained model on the CPU: a plain module, not compiled, in evaluation mode.

        It takes float32 (n, 3, image_size, image_size), or clips (n, frames, 3, image_size, image_size), as `transform`
        gives them, and returns logits (n, classes), (n, cycles, classes) or (n, cycles, heads, classes); embeddings
        after SimCLRLoss and SupConLoss. Weights are stored as torch does by default: where the trainer had them
        `channels_last`, other kernels may add in another order, and differ from it in the last bits.

        weights: as in `weights`. allow: packages of yours that may be imported, if the job names a model of one.
        """
        from accel_trainer.evaluation.trained_model import trained_model

        path = self.weights(weights)
        with imports_allowed(allow):
            return trained_model(trained_job(self._folder), path, len(self.classes))

    @property
    def transform(self) -> "ValidationTransform":
        """The preprocessing of the run's validation: a function from an image, such as one of PIL, to what its model
        takes, without the first dimension. The bits are those of the training's loader."""
        from accel_trainer.data.pipeline import ValidationTransform

        return ValidationTransform(trained_job(self._folder))

    @overload
    def evaluate(
        self,
        dataset: str | None = None,
        *,
        weights: str | int = "best",
        data_root: str | os.PathLike[str] | None = None,
        allow: str | Iterable[str] = (),
    ) -> "Evaluation": ...

    @overload
    def evaluate(
        self,
        dataset: str | None = None,
        *,
        degradations: "Sequence[str | Mapping[str, Any]]" = (),
        degraded_set: str | os.PathLike[str] | None = None,
        weights: str | int = "best",
        data_root: str | os.PathLike[str] | None = None,
        occluder_dir: str | os.PathLike[str] | None = None,
        probabilities: "int | Literal['all']" = "all",
        batch_size: int | None = None,
        name: str | None = None,
        allow: str | Iterable[str] = (),
    ) -> "MeasuredEvaluation": ...

    def evaluate(
        self,
        dataset: str | None = None,
        *,
        degradations: "Sequence[str | Mapping[str, Any]] | None" = None,
        degraded_set: str | os.PathLike[str] | None = None,
        weights: str | int = "best",
        data_root: str | os.PathLike[str] | None = None,
        occluder_dir: str | os.PathLike[str] | None = None,
        probabilities: "int | Literal['all']" = "all",
        batch_size: int | None = None,
        name: str | None = None,
        allow: str | Iterable[str] = (),
    ) -> "Evaluation | MeasuredEvaluation":
        """Measure weights on the validation images of the run's own data set, or of another one, in this process.

        dataset: as in a job. data_root: where it is, if not where the job says. weights, allow: as in `model`.

        degradations: names such as "noise" or "imagenet-c/fog", or {"name": ..., "levels": [...]}; with [], the images
        as they are. Then each answer is written to a table of trials in `evaluations/<name>/` of the run folder, and
        what is given back has `trials`, `summary` and `plot()`. What an earlier call, ended anywhere, has left there is
        gone on with; what is complete is read. degraded_set: a folder of degraded images as published, in place of the
        data set's. occluder_dir: laid out as the Visual Occluders Dataset. probabilities:
        "all", or how many of the largest are kept. batch_size: images in a forward pass, by default the validation's.
        Raises UserError, also while another process writes that folder, or where it has something else.
        """
        if degradations is not None or degraded_set is not None:
            from accel_trainer.config.evaluation import EvaluationPlan

            plan = EvaluationPlan.parse(
                {
                    "name": name,
                    "weights": str(weights),
                    "dataset": dataset,
                    "data_root": None if data_root is None else os.fspath(data_root),
                    "degradations": [one if isinstance(one, str) else dict(one) for one in degradations or ()],
                    "degraded_set": None if degraded_set is None else os.fspath(expand_path(degraded_set)),
                    "occluder_dir": None if occluder_dir is None else os.fspath(occluder_dir),
                    "probabilities": probabilities,
                    "batch_size": batch_size,
                }
            )
            return self.evaluate_plan(plan, allow=allow)
        beside = {"occluder_dir": occluder_dir, "batch_size": batch_size, "name": name}
        if unused := [option for option, value in beside.items() if value is not None]:
            raise UserError("only with `degradations` or `degraded_set`", option=unused[0])
        from accel_trainer.evaluation.accuracy import evaluate

        with imports_allowed(allow):
            return evaluate(self._folder, str(weights), dataset, None if data_root is None else Path(data_root))

    def evaluate_plan(
        self,
        plan: "EvaluationPlan",
        *,
        allow: str | Iterable[str] = (),
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "MeasuredEvaluation":
        """`evaluate` of what a plan says, as a job file has it (`accel_trainer.config.evaluation`).

        on_progress: called after each batch with the number of trials that are done, and of all.
        """
        from accel_trainer.api.measured_evaluation import MeasuredEvaluation
        from accel_trainer.evaluation.run_plan import run_plan

        with imports_allowed(allow):
            measured = run_plan(self._folder, plan, on_progress=on_progress)
        return MeasuredEvaluation(measured.folder, measured.computed)

    def export(
        self,
        folder: str | os.PathLike[str],
        format: "ExportFormat" = "hf",
        *,
        weights: str | int = "best",
        license: str | None = None,
        cycles: "Literal['last', 'all']" = "last",
        layers: Sequence[str] = (),
        regions: Mapping[str, str] | None = None,
        allow: str | Iterable[str] = (),
    ) -> "Written":
        """Write the model so that others can load it (docs/export.md): weights, preprocessing, classes, a model card.

        folder: gets the files; one with files of anything but an earlier export is refused. format: hf (timm,
        transformers, the Hugging Face hub), torchvision, onnx, torch-export or brain-score. license: for the card, as
        the hub names it. cycles: of which the graph of onnx and torch-export gives logits, where the model gives those
        of all. layers, regions: of brain-score, from which layers it chooses, and which layer stands for which area,
        {"V1": "layer1"}. weights, allow: as in `model`. Raises UserError.
        """
        from accel_trainer.export.form import ExportOptions
        from accel_trainer.export.write import write_export

        options = ExportOptions(str(weights), license, cycles, layers, regions or {})
        with imports_allowed(allow):
            return write_export(self._folder, expand_path(folder), format, options)

    def evaluations(self) -> "dict[str, MeasuredEvaluation]":
        """What was measured of this run, complete or not, by the names of the folders in `evaluations/`."""
        from accel_trainer.api.measured_evaluation import MeasuredEvaluation

        return {name: MeasuredEvaluation(folder) for name, folder in evaluations_of(self._folder).items()}

    def layers(self, *, allow: str | Iterable[str] = ()) -> dict[str, tuple[int, ...]]:
        """The layers of the model that `features` can take, in the order of its modules, with the shape of what each
        gives for one image. A layer that is called more than once in a forward pass is there for each cycle, as
        `IT-t0`, `IT-t1`, ... allow: as in `model`."""
        from accel_trainer.evaluation.layers import activations

        model = self.model("best" if self._folder.best_weights.is_file() else "final", allow=allow)
        return {one.name: one.shape for one in activations(model, trained_job(self._folder))}

    def features(
        self,
        images: "str | os.PathLike[str] | Sequence[ImageLike]",
        layers: Sequence[str],
        *,
        weights: str | int = "best",
        pool: "Pool" = "none",
        batch_size: int = 64,
        allow: str | Iterable[str] = (),
    ) -> "Rows":
        """What layers of the trained model give for images: arrays, float32 (images, *shape of the layer), by the name
        of the layer, with its cycle where it has several: {"V1-t0": ..., "V1-t1": ...}.

        The images are preprocessed as those of the run's validation are, and the features have the bits that a forward
        hook sees. All are in memory; `accel-train features` writes those of many images to files.

        images: a folder, whose images at any depth are taken in the order of their paths; or images, each as
        `transform` takes them. layers: names of `layers`; "IT" stands for all cycles of IT, "IT-t2" for one, and
        "IT.output" for what IT gives. pool: "none"; "flatten" (images, values); or "mean" over height and width,
        (images, channels). batch_size: images in a forward pass; on which the last bits may depend. weights, allow: as
        in `model`. Raises UserError for what is no layer, with names that are near, and where more than one in a
        hundred images are corrupt; the features of a corrupt image are NaN.
        """
        from accel_trainer.data.sources.given import GivenImages, images_below
        from accel_trainer.evaluation.features import Wanted, features

        if isinstance(images, str | os.PathLike):
            source: GivenImages | Any = images_below(expand_path(images))
        else:
            source = GivenImages(images)
        with imports_allowed(allow):
            return features(self._folder, source, Wanted(layers, str(weights), pool, batch_size))

    def write_features(
        self,
        out: str | os.PathLike[str],
        layers: Sequence[str],
        *,
        images: str | os.PathLike[str] | None = None,
        dataset: str | None = None,
        data_root: str | os.PathLike[str] | None = None,
        file_format: "Format" = "npy",
        weights: str | int = "best",
        pool: "Pool" = "none",
        batch_size: int = 64,
        allow: str | Iterable[str] = (),
    ) -> "WrittenFeatures":
        """`features`, written to a folder as they are computed: what is in memory does not depend on how many images
        there are. A call that was ended, anywhere, is gone on with by the next.

        out: gets `<layer>/features.npy` and `<layer>/file_names.txt`, or with the format "safetensors" one
        `features.safetensors` and `file_names.txt`; and `features.json`. Features of anything else in it are refused.
        images: a folder; without one the validation images of a data set, by default the run's own (see `evaluate`).
        """
        from accel_trainer.evaluation.features import Images, Wanted, write_features

        taken = Images(
            None if images is None else expand_path(images),
            dataset,
            None if data_root is None else Path(data_root),
        )
        wanted = Wanted(layers, str(weights), pool, batch_size)
        with imports_allowed(allow):
            return write_features(self._folder, taken, wanted, expand_path(out), file_format)

    def probe(
        self,
        layers: Sequence[str],
        *,
        readouts: Sequence[str] = ("logistic",),
        c: float | Sequence[float] = 1.0,
        k: int | Sequence[int] = 20,
        temperature: float | None = 0.07,
        lr: float = 1.0,
        epochs: int = 100,
        pool: "Pool" = "flatten",
        dataset: str | None = None,
        data_root: str | os.PathLike[str] | None = None,
        weights: str | int = "best",
        name: str = "probe",
        batch_size: int = 64,
        allow: str | Iterable[str] = (),
    ) -> "Probed | None":
        """What can be read out of layers, in each cycle: classifiers that learn from frozen features of the training
        images, tested on the validation images. It writes `evaluations/<name>/` with `trials.parquet` and
        `summary.csv`, and gives the figures; a call that was ended, anywhere, is gone on with by the next.

        readouts: "logistic" (scikit-learn's, with the penalty `c`; of several the best in a cross-validation), "sgd"
        (a linear layer by solo-learn's protocol, with `lr` and `epochs`), "knn" (of `k` neighbors, whose votes weigh
        exp(similarity / temperature), or 1 each with None). dataset, data_root: as in a job; by default the run's own.
        layers, pool, batch_size, weights, allow: as in `features`. None of a process that is not the first of a launch.
        """
        from accel_trainer.evaluation.probe import ProbeSettings, probe
        from accel_trainer.evaluation.readouts import readouts_of

        costs, neighbors = ([one] if isinstance(one, int | float) else list(one) for one in (c, k))
        chosen = readouts_of(
            readouts, costs=costs, neighbors=list(map(int, neighbors)), temperature=temperature, lr=lr, epochs=epochs
        )
        root = None if data_root is None else Path(data_root)
        settings = ProbeSettings(layers, chosen, str(weights), pool, batch_size, dataset, root, name)
        with imports_allowed(allow):
            return probe(self._folder, settings)

    @contextmanager
    def launch_probe(
        self,
        arguments: Sequence[str],
        *,
        weights: str | int = "best",
        options: LaunchOptions | None = None,
        allow: str | Iterable[str] = (),
    ) -> Iterator["WorkerCall"]:
        """`probe` in processes of its own, as `launch_evaluation` does with `evaluate`. arguments: of
        `workers.probe`."""
        given = ("probe", Program.PROBE, [*arguments, f"--weights={weights}"])
        with self._launched(*given, str(weights), options, allow) as call:
            yield call

    @contextmanager
    def launch_features(
        self,
        arguments: Sequence[str],
        *,
        weights: str | int = "best",
        options: LaunchOptions | None = None,
        allow: str | Iterable[str] = (),
    ) -> Iterator["WorkerCall"]:
        """`write_features` in processes of its own, as `launch_evaluation` does with `evaluate`. arguments: of
        `workers.features`."""
        given = ("features", Program.FEATURES, [*arguments, f"--weights={weights}"])
        with self._launched(*given, str(weights), options, allow) as call:
            yield call

    @contextmanager
    def launch_evaluation(
        self,
        dataset: str | None = None,
        *,
        weights: str | int = "best",
        data_root: str | os.PathLike[str] | None = None,
        options: LaunchOptions | None = None,
        allow: str | Iterable[str] = (),
    ) -> Iterator["WorkerCall"]:
        """`evaluate` in processes of its own, on the hardware of `options`; a context that gives the worker's answer.

        Entering it raises UserError, for names of weights before anything is launched, and `WorkerFailed` and
        `WorkerStopped` of `launch.call_worker`.
        """
        arguments = [f"--weights={weights}"]
        arguments += [f"--dataset={dataset}"] if dataset is not None else []
        arguments += [f"--data-root={os.fspath(data_root)}"] if data_root is not None else []
        with self._launched("evaluate", Program.EVALUATE, arguments, str(weights), options, allow) as call:
            yield call

    @contextmanager
    def launch_plan(
        self, plan: "EvaluationPlan", *, options: LaunchOptions | None = None, allow: str | Iterable[str] = ()
    ) -> Iterator["WorkerCall"]:
        """`evaluate_plan` in processes of its own, as `launch_evaluation`."""
        arguments = [f"--plan={plan.model_dump_json()}"]
        with self._launched("evaluate", Program.EVALUATE, arguments, plan.weights, options, allow) as call:
            yield call

    @contextmanager
    def _launched(
        self,
        verb: str,
        worker: Program,
        arguments: Sequence[str],
        weights: str,
        options: LaunchOptions | None,
        allow: str | Iterable[str],
    ) -> Iterator["WorkerCall"]:
        """A worker for this run, and its answer."""
        from accel_trainer.launch.call_worker import ANSWER, called_worker

        job = trained_job(self._folder)
        trained_weights(self._folder, job, weights)

        def plan(place: Path) -> Launch:
            given = options or LaunchOptions()
            whole = [str(self.path), f"--answer={place / ANSWER}", *arguments]
            return plan_launch(job, given, this_machine(cpu=given.cpu), whole, worker=worker)

        with imports_allowed(allow), called_worker(verb, plan) as call:
            yield call


def load_run(path: str | os.PathLike[str]) -> Run:
    """The run in a folder. Raises UserError where there is none."""
    return Run(path)


def load_runs(*folders: str | os.PathLike[str]) -> list[Run]:
    """The runs in some folders and below them, in the order of their paths; earlier ones, in `previous/`, are left out.

    Raises UserError for a folder without any.
    """
    return [run for folder in folders for run in _runs_below(expand_path(folder))]


def _runs_below(folder: Path) -> list[Run]:
    found = [Run(run.path) for run in runs_below(folder) if run.has_run]
    return found or [Run(folder)]  # which says that there is none
