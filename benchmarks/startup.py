"""How long `accel-train status` takes, beside the bare import of what it is made of: `python benchmarks/startup.py`.

Both in turn, A B A B, after a warm-up; medians of the wall time and of the ratio pair by pair.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAIRS = 15
LIMIT = 3.0


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(10):
            (Path(folder) / f"job{number}.json").write_text('{"architecture": "resnet18"}')
        status = [sys.executable, "-m", "accel_trainer.cli", "status", "--queue", folder]
        bare = [sys.executable, "-c", "import typer, pydantic"]
        seconds(status), seconds(bare)
        pairs = [(seconds(status), seconds(bare)) for _ in range(PAIRS)]
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"accel-train status, 10 jobs   {statistics.median(a for a, _ in pairs) * 1000:6.0f} ms")
    print(f"import typer, pydantic        {statistics.median(b for _, b in pairs) * 1000:6.0f} ms")
    print(f"ratio                         {ratio:6.2f}  (at most {LIMIT:g})")


if __name__ == "__main__":
    main()
