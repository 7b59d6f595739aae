from pathlib import Path

from accel_trainer.run.folder import RunFolder
from accel_trainer.run.performance import PerformanceRow, read_performance


def test_a_row_of_the_table_is_flat_as_a_record_and_comes_back() -> None:
    row = PerformanceRow.measured(3, "val", {"loss": 0.5, "acc1": 90.0}, lr=0.1, num_images=100, seconds=2.0)
    record = row.as_record()
    assert list(record) == ["epoch", "split", "loss", "acc1", "lr", "images_per_s", "seconds"]
    assert record["images_per_s"] == 50.0
    assert PerformanceRow.from_record(record) == row


def test_a_score_that_was_not_measured_is_left_out_of_its_row(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.performance.write_text("epoch,split,loss,acc1,knn,lr,images_per_s,seconds\n1,val,0.5,,80,0.1,10,2\n")
    (row,) = read_performance(run)
    assert row.scores == {"loss": 0.5, "knn": 80.0}
