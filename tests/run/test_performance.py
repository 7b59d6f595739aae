from accel_trainer.run.performance import PerformanceRow


def test_a_row_of_the_table_is_flat_as_a_record_and_comes_back() -> None:
    row = PerformanceRow.measured(3, "val", {"loss": 0.5, "acc1": 90.0}, lr=0.1, num_images=100, seconds=2.0)
    record = row.as_record()
    assert list(record) == ["epoch", "split", "loss", "acc1", "lr", "images_per_s", "seconds"]
    assert record["images_per_s"] == 50.0
    assert PerformanceRow.from_record(record) == row


def test_a_score_that_was_not_measured_is_left_out_of_its_row() -> None:
    line = {"epoch": "1", "split": "val", "loss": "0.5", "acc1": "", "knn": "80", "lr": "0.1"}
    row = PerformanceRow.from_csv({**line, "images_per_s": "10", "seconds": "2"})
    assert row.scores == {"loss": 0.5, "knn": 80.0}
