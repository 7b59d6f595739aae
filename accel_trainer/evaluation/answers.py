"""What is kept of a model's answers: the response, the entropy, and probabilities, of each image in each cycle."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from accel_trainer.training.objectives.base import Cycles

Records = npt.NDArray[np.void]
# As many as the validation ranks for its accuracies: among equal logits the same one is first.
RANKED = 5


@dataclass(frozen=True)
class AnswerKind:
    """What is kept. num_probabilities: of the k largest, with their classes; of all, in their order, where k is the
    number of the classes; none where it is 0."""

    num_classes: int
    num_cycles: int
    num_probabilities: int

    @classmethod
    def of(cls, wanted: str | int, num_classes: int, num_cycles: int) -> "AnswerKind":
        """wanted: "all", or how many."""
        number = num_classes if wanted == "all" else min(int(wanted), num_classes)
        return cls(num_classes, num_cycles, number)

    @property
    def has_all(self) -> bool:
        """Whether the probabilities are those of all classes."""
        return self.num_probabilities == self.num_classes

    @property
    def dtype(self) -> np.dtype[np.void]:
        """A record for each image and cycle."""
        fields: list[Any] = [("response", "<i4"), ("entropy", "<f4")]
        if self.num_probabilities:
            fields.append(("probabilities", "<f4", (self.num_probabilities,)))
            if not self.has_all:
                fields.append(("top_classes", "<i4", (self.num_probabilities,)))
        return np.dtype(fields)

    def records(self, output: Any, cycles: Cycles) -> Records:
        """(images, cycles) of what a model gives for a batch. The response is the class that the validation counts as
        the first; probabilities are the softmax of the logits, of several heads of their mean, and the entropy is
        theirs, in nats."""
        logits = cycles.of(output).mean(2)
        ranked = logits.topk(min(RANKED, self.num_classes), dim=-1).indices
        exact = logits if logits.device.type == "mps" else logits.double()
        logs = exact.log_softmax(-1)
        probabilities = logs.exp()
        found = np.zeros(tuple(logits.shape[:2]), self.dtype)
        found["response"] = _numbers(ranked[..., 0])
        found["entropy"] = _numbers(-torch.special.xlogy(probabilities, probabilities).sum(-1))
        if self.has_all:
            found["probabilities"] = _numbers(probabilities)
        elif self.num_probabilities:
            top = ranked[..., : self.num_probabilities]
            if self.num_probabilities > RANKED:
                top = logits.topk(self.num_probabilities, dim=-1).indices
            found["probabilities"] = _numbers(probabilities.gather(-1, top))
            found["top_classes"] = _numbers(top)
        return found


def _numbers(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.cpu().numpy()
