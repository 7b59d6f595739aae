"""What every peer trains: the same model, data, optimizer and steps.

Each peer is a script that is given a folder: `work.json` in it says what to do, `clock` is where the model notes its
steps. All train with drop_last and without worker processes, on tensors that are in memory; evaluate after every
epoch; and save the model and the optimizer after it, in their own way.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import clocked
import torch
from torch.utils.data import DataLoader, TensorDataset

Batches = DataLoader[tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Work:
    folder: Path
    data: str
    model_class: str
    num_classes: int
    num_epochs: int
    batch_size: int
    lr: float
    momentum: float

    @classmethod
    def read(cls) -> "Work":
        folder = Path(sys.argv[1])
        return cls(folder, **json.loads((folder / "work.json").read_text()))

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def model(self) -> torch.nn.Module:
        torch.manual_seed(0)
        make: Callable[..., torch.nn.Module] = getattr(clocked, self.model_class)
        return make(self.num_classes, clock=str(self.folder / "clock"))

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self.lr, momentum=self.momentum)

    def data_sets(self) -> tuple[TensorDataset, TensorDataset]:
        """To train on and to validate on; images float32 (n, 3, 32, 32), labels int64 (n,)."""
        stored = torch.load(self.data)
        return TensorDataset(*stored["train"]), TensorDataset(*stored["val"])

    def loaders(self) -> tuple[Batches, Batches]:
        train, val = self.data_sets()
        return DataLoader(train, self.batch_size, shuffle=True, drop_last=True), DataLoader(val, self.batch_size)
