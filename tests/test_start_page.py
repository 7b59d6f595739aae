"""docs/start.md, walked as a reader does: every command and snippet, in its order, in an empty folder."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from helpers import REPOSITORY
from PIL import Image

from accel_trainer.api.new_folder import EXAMPLES

PAGE = (REPOSITORY / "docs/start.md").read_text()


def blocks() -> list[str]:
    """What is typed, block by block: commands, and snippets of Python."""
    found = re.findall(r"^```(\w*)\n(.*?)^```|((?:^    \S[^\n]*\n)+)", PAGE, re.S | re.M)
    python = {"python": "python - <<'END'\n{}END\n", "json": "", "": ""}
    return [re.sub("^    ", "", typed, flags=re.M) or python[kind].format(fenced) for kind, fenced, typed in found]


def walk(folder: Path) -> dict[str, str]:
    """What each block prints. The jobs of the example are made to train for a moment only."""
    printed = {}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for block in filter(None, blocks()):
        script = f"{block}\npwd >&3"
        reads, writes = os.pipe()
        with os.fdopen(reads) as where:
            result = subprocess.run(
                ["bash", "-euc", f"exec 3>&{writes}\n{script}"],
                cwd=folder,
                env={**os.environ, "PATH": path, "WANDB_MODE": "offline"},
                pass_fds=[writes],
                capture_output=True,
                text=True,
            )
            os.close(writes)
            assert result.returncode == 0, f"{block}\n{result.stdout}\n{result.stderr}"
            printed[block] = result.stdout
            folder = Path(where.read().strip())
        for name in EXAMPLES if "init lab" in block else ():
            job = json.loads((folder / name).read_text())
            job |= {"class_subset": [0, 1], "num_epochs": 1, "scheduler_args": {"T_max": 1}}
            (folder / name).write_text(json.dumps(job))
    return printed


def test_the_job_of_the_page_is_that_of_the_example():
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    assert shown == (REPOSITORY / "training_queue/examples" / EXAMPLES[0]).read_text()


def test_the_page_is_read_whole():
    assert len(blocks()) >= 11
    typed = "".join(blocks())
    assert [
        line for line in PAGE.splitlines() if line.startswith("    accel-train") and line.strip() not in typed
    ] == []


@pytest.mark.slow
@pytest.mark.usefixtures("unplotted")
def test_every_command_of_the_page_does_what_it_says(own_environment):
    for split in ("train", "val"):
        for name in ("daisy", "tulip"):
            folder = Path.home() / "Datasets/flowers" / split / name
            folder.mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (64, 48), (30 * number, 90, 200)).save(folder / f"{number}.jpg")
    printed = walk(own_environment)
    assert (own_environment / "flower-lab/resnet18-flowers.png").exists()
    compared, table = (
        next(text for block, text in printed.items() if word in block) for word in (" status", "models\n")
    )
    pictures = (REPOSITORY / "docs/pictures/compare.svg").read_text()
    shown = unescape(" ".join(re.findall(r"<text[^>]*>([^<]*)", pictures))).split()
    for column in (*compared.splitlines()[0].split(), *table.splitlines()[0].split()):
        assert column in shown, f"{column}: draw docs/pictures/compare.svg anew (`make docs`)"
