"""Everything beside its peers, in turn, and the page that says so: `python benchmarks/run.py`, or `make bench`.

A round takes four minutes on two quiet cores. Nothing else should run meanwhile, or the numbers say little.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import busy
import loop
from contestants import Work
from machine import this_machine, versions
from page import HEAD, on_gpus, page
from results import Section

PAGE = Path(__file__).parent.parent / "docs/benchmarks.md"
ALL = ("loop", "startup", "busy", "saving", "loading", "lock")


def say(line: str) -> None:
    print(line, flush=True)


def training_sections(wanted: Sequence[str], rounds: int) -> list[Section]:
    """The loop and the start-up are measured in the same runs, which are short where nobody asks for the loop."""
    epochs = loop.EPOCHS if "loop" in wanted else 1
    outcome = loop.compare(lambda data: Work(data, epochs), rounds, say)
    return outcome.sections(loop="loop" in wanted, startup="startup" in wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ALL, help="one of the benchmarks; printed, unless --output says where to")
    parser.add_argument("--rounds", type=int, default=7, help="how often each contestant runs (%(default)s)")
    parser.add_argument("--output", type=Path, help=f"the page ({PAGE})")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    # Also where signals were ignored, as those of a shell's background jobs are: nothing that was started stays behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    wanted = ALL if options.only is None else (options.only,)
    machine = this_machine()
    if machine.is_busy:
        say(f"this machine is busy (load average {machine.load:.1f}): the page will call its numbers provisional")
    output = options.output or (PAGE if options.only is None else None)
    sections, packages = list[Section](), list(loop.PACKAGES)

    def write() -> None:
        """What is known so far: hours of measuring are not lost to what comes after them."""
        found = versions(dict.fromkeys([*packages, "accel-train"]))
        text = page(sections, machine, found, options.rounds, datetime.now(UTC).date(), head=f"{HEAD}\n{on_gpus()}")
        if output is None:
            say(text)
        else:
            output.write_text(text)
            say(f"written: {output}")

    if "loop" in wanted or "startup" in wanted:
        sections += training_sections(wanted, options.rounds)
        write()
    if "busy" in wanted:
        sections += busy.sections(options.rounds, say)
        write()
    # Imported late: they import torch, and the memory of what this process starts counts from its own.
    if "saving" in wanted:
        import saving

        sections.append(saving.section(options.rounds, say))
        write()
    if "loading" in wanted:
        import loading_beside

        sections.append(loading_beside.section(options.rounds, say))
        packages += loading_beside.PACKAGES
        write()
    if "lock" in wanted:
        import lock

        sections.append(lock.section(options.rounds, say))
        write()


if __name__ == "__main__":
    main()
