"""What the comparison with peers makes of its measurements. No peer is needed."""

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import busy
import clocked
import contestants
import growth
import loading_beside
import lock
import loop
import pytest
import races
import saving
import torch
from clock import Note, notes, steps
from contestants import LAUNCHED, Contestant, Work
from machine import NOT_INSTALLED, Machine, this_machine, versions
from page import GPU_PAGE, on_gpus, page
from races import Failed, Memory, Race
from results import DIFFERENCE, Goal, Section, median_compared, rows

from accel_trainer.core.processes import children

QUIET = Machine("a processor", 2, 16.4, "a system", "3.11.7", load=0.1)
# Two epochs of two steps, and a validation of three images in two batches after each.
WORK = Work("nothing", num_epochs=2, batch_size=4, num_train=9, num_val=3)
VALIDATION = [Note(0.0, False, 2), Note(0.0, False, 1)]
EPOCH = [Note(0.0, True, 4), Note(0.0, True, 4), *VALIDATION]


def race_of(work: Work, *times: float, began: float = 100.0) -> Race:
    return Race(work, began, [Note(began + time, True, work.batch_size) for time in times], Memory(50.0, 70.0))


def section(**changes):
    values = {"bare": [100.0, 200.0, 300.0], "other": [50.0, 180.0, 330.0]}
    return Section(
        **{"title": "Speed", "about": "What.", "unit": "x/s", "values": values, "baseline": "bare"} | changes
    )


def test_medians_and_ranges_are_of_the_rounds_and_so_are_comparisons():
    bare, other = rows(section())
    assert (bare.median, bare.lowest, bare.highest, bare.compared) == (200, 100, 300, (1, 1, 1))
    assert (other.median, other.lowest, other.highest) == (180, 50, 330)
    assert other.compared == pytest.approx((0.9, 0.5, 1.1))
    assert rows(section(comparison=DIFFERENCE))[1].compared == (-20, -50, 30)
    assert median_compared(section().values, "other", "bare") == pytest.approx(0.9)
    assert median_compared(section().values, "other", "nobody") is None


def test_without_its_baseline_nothing_is_compared():
    assert [row.compared for row in rows(section(baseline="nobody"))] == [None, None]


def test_the_page_lists_who_was_measured_where_and_who_was_not():
    goal = Goal("other at least 0.95 of bare", 0.9, is_met=False)
    known = {"torch": "2.14.1", "lightning": NOT_INSTALLED}
    text = page([section(goals=[goal], missing={"third": "not there"})], QUIET, known, 3, date(2026, 1, 2))
    assert "| other | 180 | 50 to 330 | 0.90 | 0.50 to 1.10 |" in text
    assert "| third | not there |" in text
    assert "| other at least 0.95 of bare | 0.90 | **no** |" in text
    for line in ("| lightning | not installed |", "| torch | 2.14.1 |", "| rounds | 3 |", "| date | 2026-01-02 |"):
        assert line in text
    assert "a processor, 2 cores" in text
    assert "busy" not in text
    for table in text.split("\n\n"):
        assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) <= 1, table


def test_the_page_of_a_busy_machine_warns_about_that():
    busy = Machine("a processor", 2, 16.4, "a system", "3.11.7", load=1.9)
    assert "busy" in page([section()], busy, {}, 1, date(2026, 1, 2))


def test_the_page_says_whether_there_is_one_of_gpus(tmp_path):
    assert "not made yet" in on_gpus(tmp_path / "benchmarks-gpu.md")
    (tmp_path / "benchmarks-gpu.md").touch()
    assert "(benchmarks-gpu.md)" in on_gpus(tmp_path / "benchmarks-gpu.md")
    assert on_gpus() in GPU_PAGE.with_name("benchmarks.md").read_text()


def test_the_machine_and_its_versions_are_recorded_here():
    assert versions(["torch", "no-such-package"]) == {
        "torch": torch.__version__.partition("+")[0],
        "no-such-package": NOT_INSTALLED,
    }
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.processor
    assert machine.memory_gb > 0.1


def test_times_of_a_race_leave_out_the_first_epoch():
    work = Work("nothing", num_epochs=4, batch_size=10, num_train=35)  # three steps each
    ran = race_of(work, 5, 7, 9, 20, 21, 22, 30, 32, 34, 50, 51, 52)
    assert ran.first_step_s == 5
    assert ran.steady == pytest.approx(2 * 3 * 10 / (2 + 4 + 2))  # from the first to the last step of epochs 2 to 4
    assert ran.whole == pytest.approx(2 * 3 * 10 / 30)  # from the start of epoch 2 to that of epoch 4


def test_who_does_other_work_is_refused():
    races.refuse_other_work(WORK, EPOCH * 2)
    for other in (EPOCH, [*EPOCH, *EPOCH[1:]], [*EPOCH, *EPOCH[:3]], [*EPOCH[:2] * 2, *VALIDATION * 2]):
        with pytest.raises(Failed):
            races.refuse_other_work(WORK, other)


def test_a_model_notes_its_steps_and_evaluations_and_nothing_else(tmp_path):
    model = clocked.ClockedResNet18(10, str(tmp_path / "clock"))
    images = torch.zeros(2, 3, 32, 32)
    model(images)
    with torch.no_grad():
        model(images)  # statistics of BatchNorm, say
        model.eval()(images[:1])
    clocked.Clocked(10, 32, str(tmp_path / "clock")).to("meta")(images.to("meta"))
    seen = notes(tmp_path / "clock")
    assert [(note.is_step, note.num_images) for note in seen] == [(True, 2), (False, 1)]
    assert steps(tmp_path / "clock") == [seen[0].time]


def test_memory_is_that_of_descendants_too(tmp_path):
    """Measured by a process that is small, as `run.py` is."""
    child = "kept = b'x' * 200_000_000; import time; time.sleep(1.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    measure = f"""
import sys
from pathlib import Path
import races
memory = races.run([sys.executable, "-c", {parent!r}], Path(), Path("log"), {{}})
print(memory.largest_mb, memory.all_mb, "torch" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(races.BENCHMARKS)}
    ran = subprocess.run(
        [sys.executable, "-c", measure], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    largest, together, has_torch = ran.stdout.split()
    assert 190 < float(largest) < 300
    assert 190 < float(together) < 300
    assert has_torch == b"False"


def test_a_failure_is_reported_by_its_last_line(tmp_path):
    with pytest.raises(Failed, match="exit code 1: ValueError: no"):
        races.run([sys.executable, "-c", "raise ValueError('no')"], tmp_path, tmp_path / "log", {})


def test_who_is_not_installed_or_fails_is_named_and_the_others_go_on(monkeypatch):
    def run_race(one: Contestant, work: Work) -> Race:
        if one.name == "broken":
            raise Failed("exit code 1: no")
        return race_of(work, 2, 3, 10, 11)

    everybody = [Contestant(name, lambda work, folder: []) for name in (loop.BARE, "broken", loop.OURS)]
    everybody.append(Contestant("absent", lambda work, folder: [], "no-such-package"))
    monkeypatch.setattr(loop, "CONTESTANTS", everybody)
    monkeypatch.setattr(loop, "race", run_race)
    monkeypatch.setattr(loop, "make_data", lambda folder: folder)
    outcome = loop.compare(lambda data: WORK, 2, lambda line: None)
    assert {name: len(each) for name, each in outcome.races.items()} == {loop.BARE: 2, loop.OURS: 2}
    assert outcome.absent == {"absent": "`no-such-package` is not installed", "broken": "failed: exit code 1: no"}
    (start,) = outcome.sections(loop=False, startup=True)
    assert start.values[loop.OURS] == [2, 2]


def test_goals_are_those_beside_the_best_peer():
    values = {loop.BARE: [100.0], LAUNCHED: [90.0], "Lightning": [80.0], loop.OURS: [97.0]}
    bare, best = loop.speed_goals(values)
    assert (bare.found, bare.is_met) == (pytest.approx(0.97), False)
    assert (best.found, best.is_met) == (pytest.approx(97 / 90), True)
    (whole,) = loop.epoch_goals(values)
    assert (whole.found, whole.is_met) == (pytest.approx(0.97), False)
    for most, is_met in ((1.2, False), (1.25, True)):
        (leanest,) = loop.memory_goals(values, most)
        assert (leanest.found, leanest.is_met) == (pytest.approx(97 / 80), is_met)
    assert loop.speed_goals({}) == loop.epoch_goals({}) == loop.start_goals({}) == loop.memory_goals({}, 1.0) == []


@pytest.mark.parametrize(("first_step_s", "is_met"), [(3.0, True), (3.5, False)])
def test_the_first_step_is_compared_with_that_of_a_bare_script(first_step_s: float, is_met: bool) -> None:
    (goal,) = loop.start_goals({loop.BARE: [2.0], LAUNCHED: [5.0], loop.OURS: [first_step_s]})
    assert (goal.found, goal.is_met) == (first_step_s - 2, is_met)


def test_goals_of_loading_are_those_beside_who_took_part():
    values = {loading_beside.PLAIN: [100.0, 100.0], loading_beside.OURS: [200.0, 400.0], "FFCV, JPEG": [200.0, 400.0]}
    plain, ffcv = loading_beside.goals(values)
    assert (plain.found, plain.is_met) == (3.0, True)
    assert (ffcv.found, ffcv.is_met) == (1.0, True)


def test_a_rate_is_of_steps_with_nothing_between_them():
    seen = [Note(0, True, 10), Note(2, True, 10), Note(3, False, 5), Note(9, True, 10), Note(10, True, 20)]
    assert busy.rate(seen) == pytest.approx((10 + 20) / (2 + 1))
    with pytest.raises(Failed):
        busy.rate([seen[0], *seen[2:4]])


def test_goals_of_a_busy_machine_are_those_beside_the_best_and_beside_threads_that_spin():
    values = {loop.BARE: [100.0], busy.ONE_THREAD: [150.0], busy.OURS: [120.0], busy.SPINNING: [10.0]}
    best, spinning = busy.goals(4, values)
    assert (best.found, best.is_met) == (pytest.approx(0.8), False)
    assert (spinning.found, spinning.is_met) == (12, True)
    assert [goal.found for goal in busy.goals(1, values)] == [best.found]
    assert busy.goals(0, {busy.OURS: [97.0], busy.SPINNING: [100.0]})[0].is_met is False
    assert busy.goals(4, {loop.BARE: [1.0]}) == []


@pytest.mark.skipif(sys.platform != "linux", reason="processes of a process")
def test_the_load_in_the_background_is_gone_afterwards():
    before = children()
    with busy.background(2):
        began = children() - before
        assert len(began) == 2
    assert not began & children()


@pytest.mark.slow
def test_the_page_of_growth_has_the_time_to_open_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "CLASSES", 10)
    monkeypatch.setattr(growth, "COUNTS", (2000,))
    (tmp_path / "sets").mkdir()
    opened = growth.openings(tmp_path / "sets", 1)
    assert list((tmp_path / "sets").iterdir()) == []
    assert list(opened) == [2000]
    loaded = {"threads": {1: {"files": 10.0, "raw pack": 20.0}, 2: {"files": 1234.0, "raw pack": 40.0}}}
    growth.draw(tmp_path / "growth.png", loaded, opened)
    assert (tmp_path / "growth.png").stat().st_size > 1000
    text = growth.page(QUIET, 1, loaded, opened)
    assert "| 2 | 1,234 | 40 |" in text
    assert f"| 2,000 | {opened[2000]['folders'].seconds:.2f} |" in text


@pytest.mark.slow
def test_the_page_has_what_exactness_costs(tmp_path):
    (tmp_path / "disk").mkdir()
    found = saving.section(1, lambda line: None, tmp_path / "disk")
    assert list((tmp_path / "disk").iterdir()) == []
    text = page([found], QUIET, {}, 1, date(2026, 1, 2))
    cost = {name: values[0] for name, values in found.values.items()}
    assert min(cost.values()) > 0
    assert cost[saving.FINITE] + cost[saving.COPY] < cost[saving.STALL]
    assert cost[saving.SYNC] < cost[saving.WHOLE]
    assert [f"| {name} | {cost[name]:,.1f} | " in text for name in saving.ALL] == [True] * len(saving.ALL)
    assert "134 MB with their checksums" in text
    assert "| a save holds up the training for at most 1 step |" in text


@pytest.mark.slow
def test_the_bare_loop_and_ours_do_the_same_work(tmp_path):
    """Else `race` raises Failed."""
    work = Work(str(races.make_data(tmp_path)), num_epochs=1, model_class="ClockedSmallCNN")
    everybody = {one.name: one for one in contestants.CONTESTANTS}
    for name in (loop.BARE, loop.OURS):
        assert races.race(everybody[name], work).first_step_s > 0


def test_peers_are_existing_scripts_whose_packages_make_bench_installs(tmp_path):
    installed = (races.BENCHMARKS / "requirements.txt").read_text().splitlines()
    for one in contestants.CONTESTANTS:
        scripts = [word for word in one.prepare(WORK, tmp_path) if word.endswith(".py")]
        assert all(Path(script).is_file() for script in scripts)
        assert scripts or one.is_ours
        assert one.package is None or one.package in installed


# -- the interpreter's lock -------------------------------------------------------------------------------------


def test_the_time_for_which_the_lock_is_held_is_its_share_of_the_cpu_time():
    assert lock.Looks(seen=200, held=50).us_a_row(cpu_s=2.0, rows=10_000) == pytest.approx(50.0)
    assert str(lock.Looks(seen=0, held=0).us_a_row(cpu_s=0.0, rows=1)) == "nan"


def test_goals_of_the_lock_are_of_the_worst_number_of_threads():
    held = {lock.label(kind, threads): [at_most - 1] for kind, at_most in lock.GOALS.items() for threads in (1, 2, 4)}
    rates = {name: [1000.0] for name in held}
    assert all(goal.is_met for goal in lock.goals(held, rates, (1, 2, 4)))
    held["raw pack, 2 threads"], rates["with occluders, 4 threads"] = [19.0, 21.0, 60.0], [900.0]
    found = lock.goals(held, rates, (1, 2, 4))
    assert [goal.found for goal in found] == pytest.approx([21, 39, 99, 1, 0.9, 1])
    assert [goal.is_met for goal in found] == [False, True, True, True, False, True]


@pytest.fixture
def watch(tmp_path):
    try:
        return lock.Watch(tmp_path)
    except OSError as error:
        pytest.skip(str(error))


def test_whether_the_lock_is_held_is_seen(watch):
    """By a loop in Python, which always holds it, and by hashing, which never does; both in threads of their own."""
    content = bytes(2**22)

    def in_thread(act):
        def until_enough():
            while time.thread_time() < 0.4:
                act()

        thread = threading.Thread(target=until_enough)
        thread.start()
        looks = watch(thread.join)
        return looks.held / looks.seen

    assert in_thread(lambda: sum(range(1000))) > 0.9
    assert in_thread(lambda: hashlib.sha256(content)) < 0.1


def test_the_lock_is_measured_for_each_kind_and_number_of_threads(watch, monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "NUM_IMAGES", 2 * lock.BATCH)
    monkeypatch.setattr(lock, "SECONDS", 0.05)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = lock.section(1, lambda line: None, threads=(1, 2))
    assert list(found.values) == [lock.label(kind, threads) for kind in lock.GOALS for threads in (1, 2)]
    assert all(rate > 0 for (rate,) in found.columns[0].values.values())
    assert len(found.goals) == 2 * len(lock.GOALS)
    text = page([found], QUIET, {}, 1, date(2026, 1, 2))
    assert "| raw pack: at most 20 µs a row |" in text
