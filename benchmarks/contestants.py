"""Who takes part in the comparison of training loops, and how each is started."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import NOT_INSTALLED, versions

PEERS = Path(__file__).parent / "peers"
ONE_PROCESS = ("--cpu", "--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no")
ONE_PROCESS += ("--dynamo_backend", "no", "--num_cpu_threads_per_process", "1")


@dataclass(frozen=True)
class Work:
    """What everybody trains: a model of clocked.py on the bundled digits, with SGD and momentum. data: see
    peers/make_data.py."""

    data: str
    num_epochs: int
    model_class: str = "ClockedResNet18"
    num_classes: int = 10
    batch_size: int = 64
    lr: float = 0.02
    momentum: float = 0.9
    # The bundled digits.
    num_train: int = 1347
    num_val: int = 450
    image_size: int = 32

    @property
    def steps_per_epoch(self) -> int:
        return self.num_train // self.batch_size


@dataclass(frozen=True)
class Contestant:
    """prepare: write into a folder what is trained there, and give the command that trains it."""

    name: str
    prepare: Callable[[Work, Path], Sequence[str]]
    package: str | None = None
    """What must be installed, by its name in the registry."""
    is_ours: bool = False

    @property
    def why_not(self) -> str | None:
        """Why it cannot take part; None: it can."""
        is_missing = self.package is not None and versions([self.package])[self.package] == NOT_INSTALLED
        return f"`{self.package}` is {NOT_INSTALLED}" if is_missing else None


def script(name: str, launcher: Callable[[], Sequence[str]] = lambda: (sys.executable,)) -> Callable[..., list[str]]:
    def prepare(work: Work, folder: Path) -> list[str]:
        wanted = ("data", "model_class", "num_classes", "num_epochs", "batch_size", "lr", "momentum")
        (folder / "work.json").write_text(json.dumps({key: asdict(work)[key] for key in wanted}))
        return [*launcher(), str(PEERS / name), str(folder)]

    return prepare


def _accelerate() -> list[str]:
    """The command of this environment."""
    return [shutil.which("accelerate", path=str(Path(sys.executable).parent)) or "accelerate", "launch", *ONE_PROCESS]


def ours(trackers: Sequence[str]) -> Callable[[Work, Path], list[str]]:
    def prepare(work: Work, folder: Path) -> list[str]:
        job = {
            "architecture": f"clocked:{work.model_class}",
            "architecture_args": {"clock": str(folder / "clock")},
            "model_dir": str(folder / "model"),
            "dataset": "digits",
            "image_size": work.image_size,
            "transform_type": "none",
            "num_epochs": work.num_epochs,
            "batch_size": work.batch_size,
            "optimizer": "SGD",
            "optimizer_args": {"lr": work.lr, "momentum": work.momentum},
            "trackers": trackers,
        }
        (folder / "job.json").write_text(json.dumps(job))
        return [sys.executable, "-m", "accel_trainer.cli", "train", "--allow-imports", "clocked", "job.json"]

    return prepare


BARE, LAUNCHED, OURS = "bare PyTorch loop", "bare loop through `accelerate launch`", "accel-train"
CONTESTANTS = (
    Contestant(BARE, script("bare.py")),
    Contestant(LAUNCHED, script("with_accelerate.py", _accelerate)),
    Contestant("Lightning", script("with_lightning.py"), "lightning"),
    Contestant("pytorch-accelerated", script("with_pytorch_accelerated.py"), "pytorch-accelerated"),
    Contestant("Hugging Face Trainer", script("with_transformers.py"), "transformers"),
    Contestant(OURS, ours([]), is_ours=True),
    Contestant(f"{OURS}, with Weights & Biases offline", ours(["wandb"]), is_ours=True),
)
