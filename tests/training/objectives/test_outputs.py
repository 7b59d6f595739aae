from collections import namedtuple

import pytest
import torch

from accel_trainer.core.errors import UserError
from accel_trainer.training.objectives.base import Cycles, auxiliary_logits, by_cycle, main_output

Outputs = namedtuple("Outputs", ["logits", "aux_logits2", "aux_logits1"])


def test_every_output_has_cycles_and_heads() -> None:
    numbers = torch.arange(24.0)
    assert torch.equal(by_cycle(numbers.view(4, 6))[:, 0, 0], numbers.view(4, 6))
    assert by_cycle(numbers.view(4, 6)).shape == (4, 1, 1, 6)
    assert torch.equal(by_cycle(numbers.view(4, 3, 2))[:, 1, 0], numbers.view(4, 3, 2)[:, 1])
    assert by_cycle(numbers.view(4, 3, 2)).shape == (4, 3, 1, 2)
    assert by_cycle(numbers.view(2, 3, 2, 2)).data_ptr() == numbers.data_ptr()
    assert by_cycle(numbers.view(2, 3, 2, 2)).shape == (2, 3, 2, 2)


def test_cycles_or_heads_may_be_on_the_last_axis() -> None:
    numbers = torch.arange(24.0).view(4, 3, 2)
    assert by_cycle(numbers, 2).shape == (4, 2, 1, 3)
    assert torch.equal(by_cycle(numbers, 2)[:, 1, 0], numbers[:, :, 1])
    assert torch.equal(by_cycle(numbers[..., 0], 2), by_cycle(numbers[..., 0]))
    assert torch.equal(Cycles.choose(2, 0, 2).of(numbers), by_cycle(numbers, 2))


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 2, 2, 1)])
def test_outputs_of_any_other_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="an output is"):
        by_cycle(torch.zeros(shape))


def test_the_main_output_of_a_model_with_auxiliary_heads_is_its_logits() -> None:
    main, second, first = (torch.full((2, 3), float(k)) for k in range(3))
    output = Outputs(main, second, first)
    assert main_output(output) is main
    assert main_output(main) is main
    assert torch.equal(by_cycle(output), by_cycle(main))
    (weight, logits), (other_weight, others) = auxiliary_logits(output)
    assert (logits is first, others is second) == (True, True)
    assert (weight, other_weight) == (0.3, 0.3)
    assert auxiliary_logits(Outputs(main, None, None)) == auxiliary_logits(main) == []


@pytest.mark.parametrize(
    ("number", "loss_cycle", "of", "reported"),
    [
        (1, None, (0,), 0),
        (1, "uniform", (0,), 0),
        (1, -1, (0,), 0),
        (5, None, (4,), 4),
        (5, 0, (0,), 0),
        (5, 3, (3,), 3),
        (5, -2, (3,), 3),
        (5, -5, (0,), 0),
        (5, "uniform", (0, 1, 2, 3, 4), 4),
    ],
)
def test_cycles_are_chosen_from_both_ends(number: int, loss_cycle: int | None, of: tuple[int], reported: int) -> None:
    cycles = Cycles.choose(number, loss_cycle)
    assert (cycles.count, cycles.indices, cycles.reported) == (number, of, reported)


@pytest.mark.parametrize(
    ("number", "loss_cycle", "said"),
    [
        (1, 1, "loss_cycle: 1, but the model gives one output; recurrent models of the zoo"),
        (1, -2, "loss_cycle: -2, but the model gives one output"),
        (5, 5, "loss_cycle: 5, but the model gives 5 cycles, from 0 to 4 or from -5 to -1"),
        (5, -6, "loss_cycle: -6, but the model gives 5 cycles"),
    ],
)
def test_a_cycle_that_does_not_exist_is_reported(number: int, loss_cycle: int, said: str) -> None:
    with pytest.raises(UserError) as caught:
        Cycles.choose(number, loss_cycle)
    assert str(caught.value).startswith(said)
