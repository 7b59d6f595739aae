"""The comparison on GPUs, on a CPU with tiny sizes."""

import json
import runpy
import sys
from datetime import date

import gpu
import gpu_contestants
import metered
import pytest
import torch
from contestants import PEERS, Contestant
from gpu_contestants import ALL_SETTINGS, CONTESTANTS, SMALL, SYNTHETIC, WAITS, Found, Task, host_waits
from machine import Machine as BenchmarkMachine
from page import page
from races import BENCHMARKS, Failed

from accel_trainer.launch.machine import Machine
from accel_trainer.launch.nvidia import Gpu

TASK = Task("small_cnn", SMALL, "cpu", ("0",), frozenset({"channels_last", "fast_kernels"}), "files", "a/raw.pack")
QUIET = BenchmarkMachine("a processor", 2, 16.4, "a system", "3.11.7", load=0.1)


@pytest.fixture
def hooks_removed(monkeypatch):
    """Those of metered.py, which else would watch the optimizers of all later tests."""
    handles = []
    register = metered.register_optimizer_step_post_hook
    monkeypatch.setattr(metered, "register_optimizer_step_post_hook", lambda hook: handles.append(register(hook)))
    yield
    metered._measure.cache_clear()
    for handle in handles:
        handle.remove()


def see_gpus(monkeypatch, number):
    there = Machine(tuple(Gpu(str(index), "a GPU", "80 GB") for index in range(number)), has_mps=False, cores=2)
    monkeypatch.setattr(gpu, "machine_to_train_on", lambda: there)


def test_without_a_gpu_one_line_says_so_and_the_exit_code_is_2(monkeypatch, capsys, tmp_path):
    see_gpus(monkeypatch, 0)
    assert gpu.main(["--output", str(tmp_path / "page.md"), "--photographs", str(tmp_path / "made")]) == 2
    assert capsys.readouterr().err.splitlines() == [gpu.NO_GPU]
    assert not (tmp_path / "page.md").exists()
    assert not (tmp_path / "made").exists()


def test_all_is_trained_on_one_gpu_and_on_all_of_them(monkeypatch):
    for number, wanted in ((1, [("0",)]), (3, [("0",), ("0", "1", "2")])):
        see_gpus(monkeypatch, number)
        assert gpu.places("cuda") == wanted
        assert gpu.about_gpus()["GPUs"] == f"{number} x a GPU"


def test_every_combination_of_the_switches_is_measured():
    assert len(ALL_SETTINGS) == 8
    assert ALL_SETTINGS["plain"] == frozenset()
    assert ALL_SETTINGS["channels_last, compile, fast_kernels"] == frozenset(TASK.settings)


def test_ours_is_given_the_gpus_and_the_settings_of_the_task(tmp_path):
    on_gpus = Task("resnet18", SMALL, "cuda", ("0", "1"), frozenset({"compile"}), "files", "/some/raw.pack")
    (ours,) = (one for one in CONTESTANTS if one.is_ours)
    assert "--gpus=0,1" in ours.prepare(on_gpus, tmp_path)
    job = json.loads((tmp_path / "job.json").read_text())
    assert (job["compile"], job["channels_last"], job["fast_kernels"]) == (True, False, False)
    assert job["batch_size"] == 2 * SMALL.batch_size
    assert (job["data_root"], job["dataset"]) == ("/some", "raw.pack")


def test_waits_are_counted_in_steps_only():
    def event(name, ts, dur=1.0, cat="cuda_runtime"):
        return {"name": name, "ts": ts, "dur": dur, "cat": cat}

    steps = [event("step", 30.0, 10.0, "user_annotation"), event("step", 10.0, 10.0, "user_annotation")]
    other = [event("step", 0.0, 9.0, "kernel"), {"name": "cudaStreamSynchronize", "ts": 5.0, "ph": "i"}]
    waits = [event("cudaStreamSynchronize", ts) for ts in (5.0, 12.0, 25.0, 31.0, 45.0)]
    others = [event("cudaLaunchKernel", 13.0), event("cudaDeviceSynchronize", 14.0)]
    assert host_waits([*waits, *steps, *other, *others], WAITS["cuda"]) == 3 / 2
    with pytest.raises(Failed, match="no step"):
        host_waits(waits, WAITS["cuda"])


def test_the_meter_times_the_steps_after_the_warm_up_of_the_first_process(tmp_path, monkeypatch):
    layer = torch.nn.Linear(2, 2)
    on_meta = torch.optim.SGD(torch.nn.Linear(2, 2, device="meta").parameters())
    optimizer, file = torch.optim.SGD(layer.parameters()), tmp_path / "meter.json"
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(metered.time, "perf_counter", lambda: next(clock))
    for rank, is_written in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        clock = iter([10.0, 14.0])
        meter = metered.Meter(file, warm_up=2, steps=3)
        for _ in range(4):
            meter(on_meta, (), {})
            meter(optimizer, (), {})
        assert not file.exists()
        meter(optimizer, (), {})
        assert file.exists() == is_written
    found = json.loads(file.read_text())
    assert found["seconds"] == 4
    assert found["memory_mb"] > 10


def run_in_this_process(words, folder, log, environment):
    """A peer's script."""
    before, sys.argv = sys.argv, list(words[1:])
    try:
        runpy.run_path(words[1], run_name="__main__")
    finally:
        sys.argv = before


def test_the_bare_loop_is_measured_and_a_wait_in_it_is_seen(tmp_path, monkeypatch, hooks_removed):
    (bare,) = (one for one in CONTESTANTS if one.name == SYNTHETIC)
    monkeypatch.syspath_prepend(str(PEERS))
    monkeypatch.setattr(gpu_contestants, "run", run_in_this_process)
    (tmp_path / "a").mkdir()
    found = gpu_contestants.measured(bare, TASK, tmp_path / "a")
    assert found.images_per_s > 0
    assert 0 <= found.waiting < 1
    assert found.host_waits == 0
    assert found.memory_mb > 10
    real = torch.nn.functional.cross_entropy

    def waiting(*args):
        loss = real(*args)
        loss.item()
        return loss

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", waiting)
    (tmp_path / "b").mkdir()
    assert gpu_contestants.measured(bare, TASK, tmp_path / "b").host_waits == 1


def test_contestants_take_turns_and_who_fails_is_named_on_the_page(monkeypatch):
    order = []

    def measure(one, task, folder):
        order.append(one.name)
        if one.name == "broken":
            raise Failed("exit code 1: no")
        return Found(100.0 * len(order), waiting=0.25, host_waits=1.5, memory_mb=2048)

    names = (SYNTHETIC, "broken", "ours")
    everybody = [Contestant(name, lambda task, folder: []) for name in names]
    monkeypatch.setattr(gpu, "CONTESTANTS", [*everybody, Contestant("absent", lambda *_: [], "no-such-package")])
    monkeypatch.setattr(gpu, "measured", measure)
    made = gpu.section(TASK, 2, lambda line: None)
    assert order == [SYNTHETIC, "broken", "ours", SYNTHETIC, "ours"]
    text = page([made], QUIET, {}, 2, date(2026, 1, 2), head=gpu.head("cpu", SMALL))
    assert "## small_cnn, 1 process on the CPU: channels_last, fast_kernels" in text
    assert "| ours | 400.0 | 300.0 to 500.0 | 2.12 | 1.25 to 3.00 | 25.0 | 1.5 | 2,048 |" in text
    assert "| broken | failed: exit code 1: no |  |  |  |  |  |  |" in text
    assert "| absent | `no-such-package` is not installed |" in text
    assert "Measured on a CPU" in text
    assert "on a CPU" not in gpu.head("cuda", SMALL)


def test_peers_are_existing_scripts(tmp_path):
    for one in CONTESTANTS:
        scripts = [word for word in one.prepare(TASK, tmp_path) if word.endswith(".py")]
        assert scripts == ([] if one.is_ours else [str(BENCHMARKS / "peers/gpu_loop.py")])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Where they are kept when they were made once, as between two calls of `make bench-gpu`."""
    return tmp_path_factory.mktemp("photographs")


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "who"), [(1, CONTESTANTS[1:3]), (2, (CONTESTANTS[0], CONTESTANTS[3]))])
def test_everybody_is_measured_on_a_cpu(processes, who, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "CONTESTANTS", who)
    output = tmp_path / "page.md"
    words = [
        "--device=cpu",
        "--small",
        "--rounds=1",
        f"--processes={processes}",
        "--setting=channels_last, fast_kernels",
    ]
    assert gpu.main([*words, f"--photographs={photographs}", f"--output={output}"]) == 0
    text = output.read_text()
    assert "failed" not in text
    rows = [line for line in text.splitlines() if line.startswith(tuple(f"| {one.name} |" for one in who))]
    assert len(rows) == len(who)
    for row in rows:
        speed, waiting, memory = (float(row.split(" | ")[cell].rstrip(" |").replace(",", "")) for cell in (1, 5, 7))
        assert speed > 0
        assert 0 <= waiting < 100
        assert memory > 50
