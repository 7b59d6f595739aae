"""Which jobs wait for which, in which order they can be run, and what a name in starting_params stands for."""

import os
import random
import time
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from helpers import write_job

from accel_trainer.config import Job, read_job
from accel_trainer.core.errors import UserError
from accel_trainer.queue.dependencies import (
    Requirements,
    cycles,
    describe_unmet,
    find_parent,
    in_order,
    starting_params,
    with_parent_path,
)
from accel_trainer.queue.layout import JobState, QueuedJob

PENDING, HELD, RUNNING, DONE, FAILED = JobState


def fine_tuned(start: str, *after: str) -> Job:
    return Job(architecture="resnet18", finetune=True, finetune_args={"starting_params": start}, after=list(after))


def test_a_job_needs_what_it_names_once_until_it_is_done():
    needs = Requirements.of(fine_tuned("c", "a", "b", "c"))
    assert needs.missing({"a": DONE, "b": RUNNING, "c": FAILED}) == {"b": RUNNING, "c": FAILED}
    assert needs.missing(dict.fromkeys("abc", DONE)) == {}
    assert needs.missing({}) == dict.fromkeys("abc")
    assert needs.waits
    assert not Requirements.of(fine_tuned("models/c")).waits


def test_a_word_is_a_path_only_when_no_job_has_that_name():
    Path("run").mkdir()
    assert Requirements(parent="run").missing({}) == {}
    assert Requirements(parent="run").missing({"run": RUNNING}) == {"run": RUNNING}
    assert Requirements(after=("run",)).missing({}) == {"run": None}


def test_the_text_for_unmet_parents_names_their_states():
    assert describe_unmet({"parent": FAILED}) == "waits for 'parent', which has failed"
    assert (
        describe_unmet({"a": HELD, "b": None}) == "waits for 'a', which is held, and for 'b', which is not in the queue"
    )


def test_only_what_waits_for_itself_is_in_a_cycle():
    waiting = {
        "a": ["b"], "b": ["c"], "c": ["a", "gone"],
        "behind": ["a"], "between": ["a"], "d": ["e", "between"], "e": ["d"], "before": ["gone"],
    }  # fmt: skip
    found = cycles(waiting)
    assert found.keys() == set("abcde")
    assert "itself: 'b' waits for 'c', 'c' waits for 'a', 'a' waits for 'b'; take" in found["b"]
    assert "itself: 'd' waits for 'e', 'e' waits for 'd'; take" in found["d"]
    assert cycles({"a": ["b"], "c": ["b"]}) == {}


def test_a_long_chain_behind_a_cycle_is_searched_in_time():
    chain = {f"job{n}": [f"job{n - 1}"] for n in range(1, 10_000)}
    began = time.monotonic()
    assert cycles({**chain, "job0": ["job9"]}).keys() == {f"job{n}" for n in range(10)}
    assert time.monotonic() - began < 10


def test_the_order_is_that_in_which_the_first_that_may_is_run():
    jobs = [QueuedJob(name, Path(f"{name}.json"), PENDING) for name in "abcdefgh"]
    missing = {
        "a": {"d": PENDING}, "b": {"gone": None}, "c": {"b": PENDING}, "e": {"x": RUNNING},
        "f": {"g": PENDING}, "g": {"f": PENDING}, "h": {"x": HELD},
    }  # fmt: skip
    assert [job.name for job in in_order(jobs, missing)] == ["d", "a", "e"]


def test_the_order_of_many_is_a_topological_one():
    """Every job comes once and after all that it waits for, as graphlib's own order of them has it."""
    draw = random.Random(0)
    numbers = list(range(200))
    draw.shuffle(numbers)
    missing = {f"{n}": {f"{m}": PENDING for m in draw.sample(numbers[:i], min(i, 3))} for i, n in enumerate(numbers)}
    jobs = [QueuedJob(name, Path(f"{name}.json"), PENDING) for name in sorted(missing)]
    order = [job.name for job in in_order(jobs, missing)]
    assert sorted(order) == sorted(TopologicalSorter(missing).static_order())
    assert all(order.index(other) < order.index(name) for name, others in missing.items() for other in others)


# -- the job whose weights another starts from --------------------------------------------------------------------


@pytest.mark.parametrize("state", JobState)
def test_a_name_stands_for_the_run_folder_of_the_job_wherever_that_is(queue, state):
    name = "parent@host.1-2-3.json" if state is RUNNING else "parent.json"
    write_job(queue.paths.of(state) / name, model_dir="~/runs/a")
    job = fine_tuned("parent")
    assert starting_params(job, queue) == Path("~/runs/a").expanduser()
    checked = with_parent_path(job, queue)
    if state is DONE:
        assert checked.finetune_args.starting_params == str(Path("~/runs/a").expanduser())
        assert checked.parent_job is None
    else:
        assert checked is job, "it has no weights yet that could be looked at"


def test_without_a_model_dir_the_run_folder_follows_from_the_parent(queue):
    write_job(queue.paths.of(DONE) / "parent~2.json")
    assert starting_params(fine_tuned("parent"), queue) == Path("models/squeezenet1_1/parent")


def test_of_two_of_one_name_that_are_done_the_newer_counts(queue):
    for number, (name, folder) in enumerate([("parent~2", "first"), ("parent", "second")]):
        path = write_job(queue.paths.of(DONE) / f"{name}.json", model_dir=folder)
        os.utime(path, (number + 1, number + 1))
    assert starting_params(fine_tuned("parent"), queue) == Path("second")


def test_a_path_is_left_alone_and_a_word_that_exists_is_made_one(queue):
    job = fine_tuned("run/params/best.safetensors")
    assert (find_parent(job, queue), with_parent_path(job, queue)) == (None, job)
    Path("run").mkdir()
    assert starting_params(fine_tuned("run"), queue) == Path("run")
    made = with_parent_path(fine_tuned("run"), queue)
    assert (made.finetune_args.starting_params, made.parent_job) == ("./run", None)


def test_a_word_that_is_neither_is_refused_with_near_names(queue):
    write_job(queue.paths.of(DONE) / "parent.json")
    with pytest.raises(UserError, match="'parnt' is neither a path nor a job of the queue training_queue") as caught:
        find_parent(fine_tuned("parnt"), queue)
    assert str(caught.value).endswith("; did you mean 'parent'?")
    assert find_parent(fine_tuned("parnt", "parnt"), queue) is None, "it comes later"
    assert find_parent(fine_tuned("parnt"), queue, coming={"parnt"}) is None


def test_a_parent_whose_file_is_no_job_is_reported_as_such(queue):
    path = write_job(queue.paths.of(DONE) / "parent.json", batch_size=-1)
    with pytest.raises(UserError, match=rf"finetune_args.starting_params: {path}: batch_size: -1 is not allowed"):
        starting_params(fine_tuned("parent"), queue)
    assert read_job(write_job(path)).name == "parent"
