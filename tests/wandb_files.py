"""What wandb has written on this disk."""

import json
import subprocess
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


def records_of_wandb(file: Path, *, may_be_cut_off: bool = False) -> list[dict[str, Any]]:
    """What wandb's own reader finds in a file of a run: that of `wandb leet inspect --json`, without the seconds that
    it takes to import wandb first. may_be_cut_off: as a kill leaves it, which is read as far as it goes."""
    inspect = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    ran = subprocess.run(
        [*inspect, "--run-file", file, file.parent.parent], capture_output=True, text=True, check=not may_be_cut_off
    )
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
