"""Training on GPUs beside a bare loop and timm's pieces, in turn: `python benchmarks/gpu.py`, or `make bench-gpu`.

resnet18 and resnet50 on photographs, on one GPU and on all, with every combination of channels_last, compile and
fast_kernels: 32 tables of four contestants where there are several GPUs, in hours; after each the page is written anew.
The photographs are made at the first time, in minutes, and kept in the folder for temporary files.

`--device cpu --small` goes the whole way on a CPU with tiny sizes. What is of GPUs was not run on one.
"""

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gpu_contestants import (
    ALL_SETTINGS,
    CONTESTANTS,
    FULL,
    SMALL,
    SYNTHETIC,
    Found,
    Sizes,
    Task,
    measured,
)
from machine import this_machine, versions
from page import GPU_PAGE, page
from races import BENCHMARKS, Failed, unsettled_environment
from results import Column, Section
from run import say

from accel_trainer.launch.machine import this_machine as machine_to_train_on

PLACE = Path(tempfile.gettempdir()) / "accel-train-loading"
PACKAGES = ("torch", "torchvision", "accelerate", "timm", "accel-train")
NO_GPU, EXIT_NO_GPU = "no NVIDIA GPU to train on was found here: nothing is measured", 2


def head(device: str, sizes: Sizes) -> str:
    where = "GPUs" if device == "cuda" else "a CPU"
    title = f"# Beside its peers on {where}\n\n"
    if device == "cpu":
        title += "**Measured on a CPU**, to try `make bench-gpu` itself: these numbers say nothing of a GPU.\n\n"
    waits = (
        "Waits of the host are its calls of CUDA that wait for the device"
        if device == "cuda"
        else "Waits of the host are the values that it reads of tensors, for which a GPU would make it wait"
    )
    memory = "tensors had on the first GPU" if device == "cuda" else "the first process had resident"
    return f"""{title}\
Written by `make bench-gpu`. Contestants take turns: A B C D, A B C D, ... The numbers are medians over the rounds;
comparisons are made within each round. All train the same model in bfloat16 (amp) with SGD and momentum, on images of
{sizes.image_size} pixels, {sizes.batch_size} a step for each process, with the same kernels of torch: those that add up
in one order, or with fast_kernels the fastest. The bare loop has one batch that stays on the device, which nothing
that loads images can beat; or it reads JPEG files as torchvision's reference does. Ours reads a raw pack of the same
photographs. timm's train script is not in its package: its loader (`create_loader`) and its optimizer
(`create_optimizer_v2`) are in the bare loop in place of it.

Images per second are those of {sizes.steps} steps after {sizes.warm_up} others, by a clock that hangs on the optimizer.
Waiting is the share of the time of these steps in which the next images were not there. {waits},
in a trace of further steps of the first process. Memory is the most that {memory}.
"""


def section(task: Task, rounds: int, say: Callable[[str], None]) -> Section:
    """All in turn, `rounds` times. Who fails is left out, with why."""
    absent = {one.name: why for one in CONTESTANTS if (why := one.why_not) is not None}
    found: dict[str, list[Found]] = {one.name: [] for one in CONTESTANTS if one.name not in absent}
    for number in range(1, rounds + 1):
        for one in CONTESTANTS:
            if one.name not in found:
                continue
            with tempfile.TemporaryDirectory(prefix="accel-train-race-", ignore_cleanup_errors=True) as folder:
                try:
                    ran = measured(one, task, Path(folder))
                except Failed as failure:
                    say(f"{one.name}: {failure}")
                    absent[one.name] = f"failed: {failure}"
                    del found[one.name]
                    continue
            say(f"round {number} of {rounds}  {task.title}  {one.name:<44}{ran.images_per_s:9.1f} images/s")
            found[one.name].append(ran)

    def values(of: Callable[[Found], float]) -> dict[str, list[float]]:
        return {name: [of(ran) for ran in each] for name, each in found.items()}

    return Section(
        task.title,
        f"{task.global_batch} images in a step.",
        "images/s",
        values(lambda ran: ran.images_per_s),
        SYNTHETIC,
        digits=1,
        missing=absent,
        columns=[
            Column("waiting for images, %", values(lambda ran: 100 * ran.waiting), 1),
            Column("waits of the host in a step", values(lambda ran: ran.host_waits), 1),
            Column("peak memory, MB", values(lambda ran: ran.memory_mb)),
        ],
    )


def places(device: str) -> list[tuple[str, ...]]:
    """On which devices everything is trained: on one, and on all together. Empty: there is none."""
    if device == "cpu":
        return [("0",), ("0", "1")]
    names = tuple(gpu.index for gpu in machine_to_train_on().together)
    return [names[:number] for number in sorted({1, len(names)})] if names else []


def about_gpus() -> dict[str, str]:
    """Names of the GPUs and the version of their driver, for the page."""
    gpus = machine_to_train_on().together
    driver = "unknown"
    if (tool := shutil.which("nvidia-smi")) is not None:
        words = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        told = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout.split()
        driver = told[0] if told else driver
    counted = {name: sum(gpu.name == name for gpu in gpus) for name in dict.fromkeys(gpu.name for gpu in gpus)}
    return {"GPUs": ", ".join(f"{number} x {name}" for name, number in counted.items()), "driver": driver}


def make_photographs(place: Path, number: int) -> dict[str, str]:
    """See peers/make_photographs.py. By another process: this one stays small. Raises Failed."""
    script = str(BENCHMARKS / "peers/make_photographs.py")
    words = [sys.executable, script, str(place), str(number)]
    ran = subprocess.run(words, capture_output=True, text=True, env=unsettled_environment(place), check=False)
    if ran.returncode:
        raise Failed(f"no photographs: {(ran.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    made: dict[str, str] = json.loads(ran.stdout)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try whether all works")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contestant runs (%(default)s)")
    parser.add_argument("--processes", type=int, action="append", help="only on so many devices (may be repeated)")
    parser.add_argument("--setting", choices=ALL_SETTINGS, action="append", help="only these (may be repeated)")
    parser.add_argument("--architecture", action="append", help="only these (may be repeated)")
    parser.add_argument("--photographs", type=Path, default=PLACE, help="the folder to keep them in (%(default)s)")
    parser.add_argument(
        "--output", type=Path, help=f"the page ({GPU_PAGE}; printed where it is of a CPU or of small sizes)"
    )
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    if options.device == "cpu" and not options.small:
        parser.error("--device cpu: only with --small")
    there = places(options.device)
    if not there:
        print(NO_GPU, file=sys.stderr)
        return EXIT_NO_GPU
    chosen = [each for each in there if options.processes is None or len(each) in options.processes]
    if not chosen:
        parser.error(f"--processes: {' or '.join(str(len(each)) for each in there)}")
    sizes = SMALL if options.small else FULL
    # At least two steps in an epoch.
    number = max(sizes.images, 2 * sizes.batch_size * len(chosen[-1]))
    try:
        made = make_photographs(options.photographs, number)
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    tasks = [
        Task(architecture, sizes, options.device, each, ALL_SETTINGS[name], **made)
        for architecture in options.architecture or sizes.architectures
        for each in chosen
        for name in options.setting or ALL_SETTINGS
    ]
    own = GPU_PAGE if options.device == "cuda" and not options.small else None
    write_page(tasks, options.rounds, options.output or own, argv)
    return 0


def write_page(tasks: Sequence[Task], rounds: int, output: Path | None, argv: Sequence[str] | None) -> None:
    """Measure, and write after each task what is known: hours of measuring are not lost."""
    device, machine, sections = tasks[0].device, this_machine(), list[Section]()
    known = {"command": f"`{shlex.join(['python', 'benchmarks/gpu.py', *(sys.argv[1:] if argv is None else argv)])}`"}
    known = {**known, **(about_gpus() if device == "cuda" else {"device": "CPU"}), **versions(PACKAGES)}
    text, day = "", datetime.now(UTC).date()
    for task in tasks:
        sections.append(section(task, rounds, say))
        text = page(sections, machine, known, rounds, day, head=head(device, task.sizes))
        if output is not None:
            output.write_text(text)
    say(text if output is None else f"written: {output}")


if __name__ == "__main__":
    # Also where signals were ignored: nothing that was started stays behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
