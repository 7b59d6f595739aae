"""A run that is killed at any of the things it does to files resumes to the same bits."""

import json
import random
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from faults import checks
from faults.fork_server import ForkServer

pytestmark = pytest.mark.slow

# Two epochs of two steps, each of which is saved; everything that writes weights is on.
JOB: dict[str, Any] = {
    "architecture": "tiny_models:NormAndDropout",
    "dataset": "digits",
    "class_subset": [0, 1],
    "image_size": 8,
    "batch_size": 128,
    "num_epochs": 2,
    "num_workers": 2,
    "transform_type": "default",
    "optimizer_args": {"lr": 0.05, "momentum": 0.9},
    "ema": 0.9,
    "swa": {"start": 1},
    "save_interval": 1,
    "save_every_minutes": 1e-6,
    "trackers": [],
}
# What a process that writes has in names: its own folder, and what is written or put aside there or elsewhere.
ASIDE = {
    r"\.writing-[^/ ]+": "own",
    r"own/\S*\.(tmp|away)/\S+": r"own/\1/file",
    r"own/[^/ ]*\.(tmp|away)": r"own/\1",
    r"\.(probe-)?[0-9a-f_-]+(\.tmp)?(?= |$)": "trial",
    r"\d+": "0",
}
# A trainer without one locks the run folder itself.
NO_TOKEN = ""


def test_a_kill_at_every_event_of_a_run(server: ForkServer, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Before every file that is opened, synced, renamed or removed, and every folder; before one of each kind of
    these, unless --every-event is given."""
    undisturbed = tmp_path / "undisturbed"
    trace = tmp_path / "trace.txt"
    train(server, undisturbed, fault(undisturbed, nth=0, trace=str(trace)))
    events = trace.read_text().splitlines()
    assert has_all_moments(events)
    is_thorough = request.config.getoption("--every-event", default=False)
    wrong = {}
    for nth in range(1, len(events) + 1) if is_thorough else one_of_each_kind(events):
        if found := found_wrong_after_a_kill(server, tmp_path / str(nth), undisturbed / "run", nth):
            wrong[f"{nth}: {events[nth - 1]}"] = found
    assert wrong == {}


def has_all_moments(events: list[str]) -> bool:
    """Whether what must be killed at is among what was seen."""
    moments = ("open .*manifest", "fsync .*model", "rename .*/resume/", "rename .*best", "rename .*swa", "rename .*csv")
    return all(any(re.match(moment, event) for event in events) for moment in moments)


def one_of_each_kind(events: list[str]) -> list[int]:
    """The numbers, from 1, of an event of each kind: what is done, and to which file of the run, whatever numbers are
    in its name. All that is written aside is of one kind. What is opened in the run folder itself is only read, or it
    is log.txt: that is none, since the next event finds the same. Of renames, by which others see it, the last counts,
    which no later one makes good; of all else any."""
    kinds: dict[str, list[int]] = {}
    for nth, event in enumerate(events, start=1):
        kind = event
        for name, what in ASIDE.items():
            kind = re.sub(name, what, kind)
        if not kind.startswith("open ") or "own/" in kind or "trial" in kind:
            kinds.setdefault(kind, []).append(nth)
    chance = random.Random(0)
    return sorted(
        numbers[-1] if kind.startswith("rename ") else chance.choice(numbers) for kind, numbers in kinds.items()
    )


def found_wrong_after_a_kill(server: ForkServer, place: Path, undisturbed: Path, nth: int) -> list[str]:
    killed = train(server, place, fault(place, nth=nth))
    assert killed in (-signal.SIGKILL, 0)  # there may be an event less: the status is written now and then
    code = train(server, place)
    run = place / "run"
    found = [f"exit code {code}"] if code else []
    found += checks.differences(run, undisturbed) + checks.duplicates(run)
    if checks.state_of(run) != "finished":
        found.append(f"it is {checks.state_of(run)}")
    if len(list((run / "resume").iterdir())) != 1:
        found.append("resume/ has more than the newest state")
    if not found:
        shutil.rmtree(place)
    return found


def fault(place: Path, **more: Any) -> dict[str, Any]:
    place.mkdir()
    return {"folders": [str(place / "run")], "marker": str(place / "struck"), "signal": signal.SIGKILL, **more}


def train(server: ForkServer, place: Path, *faults: dict[str, Any]) -> int:
    job = place / "job.json"
    job.write_text(json.dumps({**JOB, "model_dir": str(place / "run")}))
    (code,) = server.attempt(job, NO_TOKEN, place / "log.txt", faults=faults)
    return code
