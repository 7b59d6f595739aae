from pathlib import Path

import pytest
from PIL import Image

from accel_trainer.report.rates import draw_range_test
from accel_trainer.run.folder import RunFolder


@pytest.mark.parametrize("found", [None, 0.01])
def test_the_tried_rates_are_drawn_and_nothing_lies_beside_them(tmp_path: Path, found: float | None) -> None:
    run = RunFolder(tmp_path)
    run.lr_finder.write_text("rate,loss,smoothed\n1e-3,2.0,2.0\n1e-2,1.0,1.5\n1e-1,3.0,2.0\n")
    draw_range_test(run, found)
    with Image.open(run.lr_finder_plot) as image:
        image.verify()
    assert sorted(path.name for path in run.path.iterdir() if path.is_file()) == ["lr_finder.csv", "lr_finder.png"]
