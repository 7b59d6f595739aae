"""Rows of all processes, and gradients that find their way back."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import run_two_ranks

from accel_trainer.training.runtime.ranks import gather_rows

# Rank 0 stores rows and weights, hence gradients, by columns; rank 1 by rows. The gradient of the sum is that of the
# offset too, which wants it as it was.
BOTH = """
from accel_trainer.training.runtime.ranks import gather_rows

rows = torch.arange(6, dtype=torch.float64).reshape(3, 2).T + 10 * rank
weights = torch.arange(12, dtype=torch.float64).reshape(3, 4).T + 100 * rank
if rank == 1:
    rows, weights = rows.contiguous(), weights.contiguous()
rows.requires_grad_()
logarithm = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
offset = logarithm.exp()
gathered = gather_rows(rows)
((gathered + offset) * weights).sum().backward()
ones = torch.ones(2, 1, requires_grad=True)
gather_rows(ones).sum().backward()  # whose gradient is one number, expanded
with torch.inference_mode():
    quiet = gather_rows(rows)
seen = {
    "gathered": gathered.detach(), "quiet": quiet, "labels": gather_rows(torch.tensor([rank, 7])),
    "gradient": rows.grad, "ones": ones.grad, "offset": logarithm.grad,
}
torch.save(seen, f"{folder}/{rank}.pt")
"""


def test_two_processes_have_all_rows_and_get_the_gradients_of_both(tmp_path: Path) -> None:
    run_two_ranks(BOTH, tmp_path)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    own = torch.arange(6, dtype=torch.float64).reshape(3, 2).T
    weights = torch.arange(12, dtype=torch.float64).reshape(3, 4).T
    for rank, seen in enumerate(both):
        assert torch.equal(seen["gathered"], torch.cat([own, own + 10]))
        assert torch.equal(seen["quiet"], seen["gathered"])
        assert seen["labels"].tolist() == [0, 7, 1, 7]
        assert torch.equal(seen["ones"], torch.full((2, 1), 2.0))
        assert torch.equal(seen["offset"], weights + 100 * rank)
    assert torch.equal(torch.cat([seen["gradient"] for seen in both]), 2 * weights + 100)


def test_without_other_processes_rows_stay_as_they_are(tmp_path: Path) -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    assert gather_rows(rows) is rows
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        assert gather_rows(rows) is rows
    finally:
        dist.destroy_process_group()


def test_gathering_tensors_of_half_precision_is_refused() -> None:
    with pytest.raises(TypeError, match="gather float32, float64 or int64"):
        gather_rows(torch.ones(2, 3, dtype=torch.bfloat16))
