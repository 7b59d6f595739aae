"""The queue as a user has it: job files in, trained models and reasons out."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import write_job

pytestmark = pytest.mark.slow
FEW: dict[str, Any] = {
    "architecture": "small_cnn",
    "architecture_args": {"features": [8, 8, 8]},
    "image_size": 16,
    "class_subset": [0, 1, 2],
}


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path("training_queue", folder).glob("*.json"))


def reason(name: str) -> str:
    return Path(f"training_queue/failed/{name}.reason.txt").read_text()


@pytest.mark.usefixtures("unplotted")
def test_one_good_job_among_four_bad_ones(cli):
    """Malformed, misspelt, unknown model, dying in training: each fails with its reason, the good one is done."""
    queue = Path("training_queue")
    write_job(queue / "good.json", **FEW, num_epochs=1)
    write_job(queue / "typo.json", **FEW, batchsize=32)
    write_job(queue / "nomodel.json", architecture="resnet19", architecture_args=None)
    write_job(queue / "dies.json", **FEW, optimizer="SGD", optimizer_args={"lr": 1e30}, num_epochs=1)
    (queue / "malformed.json").write_text('{"architecture": "resnet18",')

    result = cli("run-queue")

    assert result.returncode == 1
    assert names("done") == ["good.json"]
    assert names("failed") == ["dies.json", "malformed.json", "nomodel.json", "typo.json"]
    assert "line 1, column 29" in reason("malformed")
    assert "batchsize: unknown key; did you mean 'batch_size'?" in reason("typo")
    assert "'resnet19'" in reason("nomodel")
    assert "'resnet18'" in reason("nomodel")
    assert "not finite" in reason("dies")
    assert "Traceback" not in result.stdout + result.stderr
    status = json.loads(Path("models/small_cnn/dies/status.json").read_text())
    assert status["state"] == "diverged"
    assert "at step" in status["error"]

    table = cli("status")
    assert table.returncode == 0
    assert "unknown key" in table.stdout
    states = {row["job"]: row["state"] for row in json.loads(cli("status", "--json").stdout)}
    assert states == {"good": "done", **dict.fromkeys(["typo", "nomodel", "dies", "malformed"], "failed")}


@pytest.mark.usefixtures("unchecked", "unplotted")
def test_two_runners_on_three_jobs_train_each_once(background):
    for number in range(1, 4):
        write_job(Path(f"training_queue/job{number}.json"), **FEW, num_epochs=1)
    runners = [background("run-queue"), background("run-queue")]
    outputs = [runner.communicate(timeout=500)[0] for runner in runners]

    assert [runner.returncode for runner in runners] == [0, 0], outputs
    assert names("done") == sorted(f"job{number}.json" for number in range(1, 4))
    logs = sorted(path.name for path in Path("training_queue/logs").iterdir())
    assert logs == sorted(f"job{number}.1.log" for number in range(1, 4))
    assert all(": done" in output for output in outputs), "both had some of the work"


def test_jobs_run_in_the_order_people_count_in(cli):
    for name in ("job10", "job2", "job1"):
        write_job(Path(f"training_queue/{name}.json"))
    commands = cli("run-queue", "--dry-run").stdout.splitlines()
    names_in_order = [re.search(r"--name=(\w+)", command)[1] for command in commands]
    assert names_in_order == ["job1", "job2", "job10"]


def test_train_writes_a_whole_run_folder_and_resumes_for_more_epochs(cli, server, tmp_path):
    run = tmp_path / "run"
    given = {**FEW, "model_dir": str(run), "class_subset": [3, 1]}
    job = write_job(Path("job.json"), **given, save_interval=1, num_epochs=2, trackers=["tensorboard"])
    assert cli("train", job).returncode == 0
    expected = {
        "config.json", "status.json", "environment.json", "classes.json", "log.txt", "performance.csv",
        "performance.pdf", "performance.png", "performance.svg", "sample_train_inputs.png", "params", "resume", "logs",
        "accel-train", "dataset.json", "dataset_listing.npz",
    }  # fmt: skip
    assert {path.name for path in run.iterdir()} == expected
    assert {path.stem for path in (run / "params").iterdir()} == {"000", "001", "002", "best"}
    assert len(list((run / "resume").iterdir())) == 1
    assert [entry["original_index"] for entry in json.loads((run / "classes.json").read_text())] == [3, 1]
    assert scalars(run)["val/acc1"] == [1, 2]
    first = (run / "params/002.safetensors").read_bytes()

    write_job(job, **given, save_interval=1, num_epochs=3)
    server.train(job)
    assert (run / "params/002.safetensors").read_bytes() == first
    assert (run / "params/003.safetensors").exists()
    table = cli("compare", run)
    assert "3/3" in table.stdout
    (row,) = json.loads(cli("compare", run, "--json").stdout)
    assert (row["job"], row["epochs"], row["state"]) == ("job", 3, "finished")

    write_job(job, **given, num_epochs=3, seed=7)
    refused = cli("train", job)
    assert refused.returncode == 2
    assert "seed was 0, is 7" in refused.stdout
    write_job(job, **given, num_epochs=1, seed=7, checkpoint=-1)
    server.train(job)
    assert (run / "previous/1/params/003.safetensors").exists()
    assert json.loads((run / "config.json").read_text())["seed"] == 7


def scalars(run: Path) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in run.rglob("events.out.tfevents.*") if path.parent.name == "accel-train"}
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_corrupt_images_are_named_skipped_and_counted(server, tmp_path):
    from PIL import Image

    root = tmp_path / "Datasets"
    for split, count in (("train", 16), ("val", 4)):
        for label, color in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
            folder = root / "colors" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40 + number, 40), color).save(folder / f"{number}.jpg")
    (root / "colors/train/red/3.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (root / "colors/val/blue/1.jpg").write_bytes(b"")
    (root / "colors/train/blue/notes.txt").write_text("by hand")
    run, given = tmp_path / "run", {**FEW, "class_subset": None, "dataset": "colors", "data_root": str(root)}
    server.train(write_job(tmp_path / "job.json", **given, batch_size=8, num_epochs=1, model_dir=str(run)))
    log = (run / "log.txt").read_text()
    assert log.count("skipped corrupt image") == 2
    assert "train/red/3.jpg" in log
    assert "val/blue/1.jpg: the file is empty" in log
    assert "notes.txt: not an image file" in log
    assert "1 corrupt images skipped" in log


# A worker that gives wandb two seconds instead of half a minute.
IMPATIENT = """
import sys
from accel_trainer.training import wandb_run
from accel_trainer.workers import train
wandb_run.WANDB_TIMEOUT_S = 2
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("unplotted")
def test_without_an_answer_wandb_runs_offline_and_leaks_no_key(server, tmp_path):
    secret = "5ec7e7" * 6 + "1234"
    job = write_job(Path("job.json"), **FEW, num_epochs=1, trackers=["wandb"], model_dir="run")
    nowhere = {"WANDB_API_KEY": secret, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    codes = server.script(IMPATIENT, [str(job), "--name=job"], tmp_path / "output", processes=1, **nowhere)
    output = (tmp_path / "output").read_text()
    assert codes == [0], output
    assert "wandb: offline" in Path("run/log.txt").read_text()
    assert len(list(Path("run/wandb").glob("offline-run-*/*.wandb"))) == 1
    assert secret not in output
    written = [path for path in Path("run").rglob("*") if path.is_file()]
    assert not [path for path in written if secret.encode() in path.read_bytes()]
