"""Models that train in no time, for jobs that name them by their import path."""

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn


class NormAndDropout(nn.Module):
    """BatchNorm before and after dropout: its statistics depend on what was dropped."""

    def __init__(self, num_classes: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.decoder = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.second(self.dropout(self.first(images))).mean((2, 3)))


class Cycles(nn.Module):
    """Every cycle has a layer of its own; nothing in it depends on how a batch is cut."""

    def __init__(self, num_classes: int, image_size: int, num_cycles: int = 1) -> None:
        super().__init__()
        self.hidden = nn.Linear(3 * image_size**2, 12)
        self.cycles = nn.ModuleList(nn.Linear(12, num_classes) for _ in range(num_cycles))

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden(images.flatten(1)))
        outputs = [cycle(hidden) for cycle in self.cycles]
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs, 1)


class Double(Cycles):
    """In double precision, where the order of sums hardly matters."""

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__(num_classes, image_size)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.double())


class Pixels(nn.Module):
    """Its representation is the image."""

    def __init__(self, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.decoder = nn.Linear(3 * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(images.flatten(1))


class Remembers(NormAndDropout):
    """What it gives depends on a buffer that every forward pass in training moves, as MoCo's queue."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("center", torch.zeros(8))

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.dropout(self.first(images))).mean((2, 3))
        if self.training:
            self.center.lerp_(features.detach().mean(0), 0.1)
        return self.decoder(features - self.center)


class Unused(NormAndDropout):
    """Has a layer that it does not use."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.unused = nn.Linear(4, 4)


class Unhurried(NormAndDropout):
    """Takes its time over every step, and none of the processor's: so there is a middle of an epoch to be killed in.
    until: as soon as this file is there, it hurries."""

    def __init__(self, num_classes: int, pause_s: float = 0.0, until: str = "/none") -> None:
        super().__init__(num_classes)
        self.pause_s, self.until = pause_s, Path(until)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and images.device.type != "meta" and not self.until.exists():
            time.sleep(self.pause_s)
        return super().forward(images)


class LooksAtValues(Pixels):
    """Does something else with images that are dark."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(-images if images.is_meta or images.mean() < 0 else images)


class Breaks(Pixels):
    """Fails in every training, for no reason that is known."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training and not images.is_meta:
            raise RuntimeError("it is broken")
        return super().forward(images)


class Hungry(Pixels):
    """Out of memory with more images than it likes, as a GPU would be."""

    def __init__(self, num_classes: int, image_size: int, most: int) -> None:
        super().__init__(num_classes, image_size)
        self.most = most

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most and not images.is_meta:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity")
        return super().forward(images)


class AfraidOfTheDark(Pixels):
    """Not a number for an image that is of one colour."""

    def forward(self, images: Tensor) -> Tensor:
        is_plain = images.amax((2, 3)) == images.amin((2, 3))
        return super().forward(images).masked_fill(is_plain.all(1, keepdim=True), torch.nan)


class HungrySecond(Hungry):
    """Only the second of several processes is."""

    def forward(self, images: Tensor) -> Tensor:
        is_second = os.environ.get("RANK") == "1"
        return super().forward(images) if is_second else Pixels.forward(self, images)


class History(nn.Module):
    """Keeps what it has seen in training, in a state that grows; what it gives depends on that."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            self.seen.append(len(features))
        return features * (1 + len(self.seen) / 10)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.seen, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        self.seen = [int(count) for count in state]


class HistoryInDict(History):
    def get_extra_state(self) -> object:
        return {"seen": self.seen}


class HistoryForOneWay(nn.Module):
    def get_extra_state(self) -> Tensor:
        return torch.zeros(1)


class HistoryThatFails(History):
    def get_extra_state(self) -> Tensor:
        raise ValueError("it is empty")


class WithExtraState(NormAndDropout):
    """Has a part that adds something to its state, which may not be possible to save."""

    def __init__(self, num_classes: int, kind: str = "tensor") -> None:
        super().__init__(num_classes)
        kinds = {"dict": HistoryInDict, "one way": HistoryForOneWay, "fails": HistoryThatFails}
        self.history = kinds.get(kind, History)()
        if kind == "sparse":
            self.register_buffer("mask", torch.sparse_coo_tensor(torch.empty(1, 0), [], (3,), device="cpu"))

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.dropout(self.first(images))).mean((2, 3))
        return self.decoder(self.history(features))


class LayerDrop(NormAndDropout):
    """Leaves a layer out in some steps, at random."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.more = nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.dropout(self.first(images)))
        if not self.training or torch.rand((), device="cpu") < 0.5:
            features = features + self.more(features)
        return self.decoder(features.mean((2, 3)))


class Freezes(NormAndDropout):
    """Leaves a layer out from its third step on, which no trial of two images shows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.more, self.steps = nn.Conv2d(8, 8, 3, 1, 1), 0

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.dropout(self.first(images)))
        self.steps += self.training and len(images) > 2
        if self.steps < 3:
            features = features + self.more(features)
        return self.decoder(features.mean((2, 3)))


class SaysThatItFreezes(Freezes):
    """The same, and says so."""

    find_unused_parameters = True
