"""A training in a notebook, as its file has it afterwards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CELL = """
import sys
sys.modules["ipywidgets"] = None  # most notebooks have none
from accel_trainer import Job, train
run = train(Job(
    name="a [1] <b>", architecture="small_cnn", dataset="digits", image_size=32, num_epochs=1, batch_size=512,
    model_dir="run", wandb={"mode": "disabled"},
))
"""
EXECUTE = """
import json, sys
import nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(text) for text in sys.argv[1:]]
notebook = nbformat.v4.new_notebook(cells=cells)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


@pytest.mark.slow
def test_a_notebook_has_one_line_of_progress_and_then_the_run(own_environment: Path) -> None:
    done = subprocess.run([sys.executable, "-c", EXECUTE, CELL, "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    training, shown = json.loads(done.stdout)
    (bar,) = (output["data"] for output in training if output["output_type"] == "display_data")
    assert bar["text/plain"].startswith("a [1] <b>: epoch 1/1  2/2  loss ")
    assert "best acc1" in bar["text/plain"]
    assert bar["text/html"].startswith('<div>a [1] &lt;b&gt;: epoch 1/1 <progress value="2" max="2"></progress> 2/2 ')
    assert "finished" in shown[0]["data"]["text/plain"]
    assert not [output for output in training if "rich" in output.get("text", "")]
