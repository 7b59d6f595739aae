"""Places on a machine, for who wants how much."""

import pytest
from helpers import said_by

from accel_trainer.config import Job
from accel_trainer.core.errors import UserError
from accel_trainer.core.launched import CORES_VARIABLE, TOKEN_VARIABLE
from accel_trainer.core.lease import Owner
from accel_trainer.core.processes import usable_cores
from accel_trainer.launch.command import LaunchOptions, num_processes_wanted, plan_launch
from accel_trainer.launch.machine import Machine
from accel_trainer.launch.nvidia import Gpu
from accel_trainer.queue.slots import Allocation, Slots

CPU = Machine((), False, 8)
GPUS = Machine(tuple(Gpu(str(index), "a GPU", "24 GiB") for index in range(4)), False, 8)


def filled(slots: Slots, *wanted: int | None) -> list[tuple[str, ...] | None]:
    """The GPUs that each of some jobs gets in turn; None for one without room."""
    places = []
    for number in wanted:
        place = slots.fit(number)
        if place is not None:
            slots.take(place)
        places.append(None if place is None else place.gpus)
    return places


def test_without_a_wish_one_job_has_all() -> None:
    assert filled(Slots(GPUS, LaunchOptions()), None, None) == [("0", "1", "2", "3"), None]
    assert filled(Slots(CPU, LaunchOptions()), None, None) == [(), None]


def test_a_job_with_a_number_of_gpus_leaves_the_others() -> None:
    assert filled(Slots(GPUS, LaunchOptions()), 1, 2, 2, 1) == [("0",), ("1", "2"), None, ("3",)]


def test_gpus_that_were_named_are_for_each_job_in_turn() -> None:
    assert filled(Slots(GPUS, LaunchOptions(gpus=("2", "0"))), 1, 1) == [("2", "0"), None]


def test_so_many_jobs_have_a_gpu_each() -> None:
    slots = Slots(GPUS, LaunchOptions(), jobs=2)
    assert filled(slots, None, None, None) == [("0",), ("1",), None]
    assert (slots.number, slots.is_full, slots.unused_gpus) == (2, True, ["2", "3"])
    assert str(slots) == "2 jobs at once, each on a GPU of its own"
    assert str(Slots(GPUS, LaunchOptions(), jobs=8)) == "4 jobs at once, each on a GPU of its own"
    assert str(Slots(GPUS, LaunchOptions(), jobs=2, gpus_per_job=2)) == "2 jobs at once, each on 2 GPUs"
    assert filled(Slots(GPUS, LaunchOptions(), jobs=8, jobs_per_gpu=2), *[None] * 9)[-2:] == [("3",), None]
    assert filled(Slots(CPU, LaunchOptions(), jobs=2), None, None, None) == [(), (), None]
    with pytest.raises(UserError, match="say the same"):
        Slots(CPU, LaunchOptions(), jobs=2, slots=2)


def test_how_jobs_share_the_gpus_is_said_where_there_are_several() -> None:
    assert str(Slots(GPUS, LaunchOptions())) == (
        "one job after the other, each on all 4 GPUs; --jobs 4 gives each job one"
    )
    assert str(Slots(GPUS, LaunchOptions(), gpus_per_job=3)) == (
        "one job after the other, each on 3 GPUs; --jobs 4 gives each job one"
    )
    assert str(Slots(GPUS, LaunchOptions(), jobs=1)) == "one job after the other, each on a GPU of its own"
    assert (str(Slots(CPU, LaunchOptions())), str(Slots(GPUS, LaunchOptions(gpus=("1",))))) == ("", "")


def test_several_jobs_share_a_gpu_the_emptiest_first() -> None:
    slots = Slots(GPUS, LaunchOptions(gpus=("1", "3")), gpus_per_job=1, jobs_per_gpu=2)
    assert filled(slots, *[None] * 5) == [("1",), ("3",), ("1",), ("3",), None]
    assert slots.is_full
    slots.leave(Allocation(("3",), cores=2))
    assert (slots.is_full, slots.fit(2), slots.fit(1)) == (False, None, Allocation(("3",), cores=2))


def test_what_others_use_is_left_to_them() -> None:
    slots = Slots(GPUS, LaunchOptions(), gpus_per_job=2)
    assert slots.fit(None, occupied={"0", "2"}) == Allocation(("1", "3"), cores=4)
    assert slots.fit(None, occupied={"0", "1", "2"}) is None
    slots.take(Allocation(("1", "3"), cores=4))
    assert slots.unused_gpus == ["0", "2"]


def test_the_cores_of_a_machine_are_divided_among_its_slots() -> None:
    assert Slots(CPU, LaunchOptions(), slots=3).fit(None) == Allocation(cores=2)
    assert Slots(CPU, LaunchOptions(), slots=16).fit(None) == Allocation(cores=1)
    assert Slots(GPUS, LaunchOptions(), gpus_per_job=1, jobs_per_gpu=2).fit(None) == Allocation(("0",), cores=1)
    assert Slots(GPUS, LaunchOptions()).fit(3) == Allocation(("0", "1", "2"), cores=6)


@pytest.mark.parametrize(
    ("machine", "flags", "wishes", "told"),
    [
        (CPU, LaunchOptions(), {"gpus_per_job": 1}, "no GPU was found on this machine; use `slots`"),
        (CPU, LaunchOptions(), {"jobs_per_gpu": 2}, "no GPU was found on this machine; use `slots`"),
        (CPU, LaunchOptions(gpus=("0",)), {}, "`gpus`: no GPU 0"),
        (GPUS, LaunchOptions(), {"slots": 2}, "`slots` is for machines without GPUs"),
        (GPUS, LaunchOptions(num_processes=5), {}, "`num_processes`: 5 are more than there are, 4"),
        (GPUS, LaunchOptions(gpus=("0", "1")), {"gpus_per_job": 3}, "`gpus_per_job`: 3 are more than there are, 2"),
    ],
)
def test_what_a_machine_has_not_is_refused(
    machine: Machine, flags: LaunchOptions, wishes: dict[str, int], told: str
) -> None:
    assert told in said_by(lambda: Slots(machine, flags, **wishes))


def test_a_job_or_its_config_sets_the_number_of_processes(tmp_path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    machines = tmp_path / "machines.yaml"
    machines.write_text("distributed_type: MULTI_GPU\nnum_processes: 8\nnum_machines: 2\nmachine_rank: 1\n")
    plain = Job(architecture="resnet18")
    assert num_processes_wanted(plain, LaunchOptions()) is None
    assert num_processes_wanted(plain.model_copy(update={"num_processes": 3}), LaunchOptions()) == 3
    assert num_processes_wanted(plain.model_copy(update={"accelerate_config": str(config)}), LaunchOptions()) == 2
    assert num_processes_wanted(plain.model_copy(update={"accelerate_config": str(machines)}), LaunchOptions()) == 4
    assert num_processes_wanted(plain.model_copy(update={"num_processes": 3}), LaunchOptions(num_processes=1)) == 1
    launch = plan_launch(plain, LaunchOptions(config=machines, gpus=("0", "1", "2", "3")), GPUS)
    assert launch.num_processes == 8, "the others are on the other machine"


def test_a_job_is_launched_with_its_number_of_processes_and_cores() -> None:
    job = Job(architecture="resnet18", num_processes=2)
    launch = plan_launch(job, LaunchOptions(), Allocation(cores=4).machine(CPU))
    assert launch.num_processes == 2
    assert launch.environment[CORES_VARIABLE] == "4"
    assert "--num_cpu_threads_per_process 2" in str(launch)
    assert CORES_VARIABLE not in plan_launch(job, LaunchOptions(), CPU).environment


@pytest.mark.parametrize(("share", "expected"), [("1", 1), ("0", 1), ("100000", None), ("many", None)])
def test_a_share_of_the_cores_is_no_more_than_there_are(monkeypatch, share: str, expected: int | None) -> None:
    monkeypatch.delenv(CORES_VARIABLE, raising=False)
    cores = usable_cores()
    monkeypatch.setenv(CORES_VARIABLE, share)
    monkeypatch.setenv(TOKEN_VARIABLE, Owner.new().token)
    assert usable_cores() == (cores if expected is None else expected)


# -- MIG devices ------------------------------------------------------------------------------------------------------

PARTS = tuple(Gpu(f"0:{place}", "a part", "10 GiB", f"MIG-{place}") for place in range(3))


def test_each_mig_device_is_a_place_for_a_job() -> None:
    parts = Machine(PARTS, False, 6)
    slots = Slots(parts, LaunchOptions())
    assert slots.number == 3
    assert filled(slots, None, 1, None, None) == [("0:0",), ("0:1",), ("0:2",), None]
    assert not slots.could_fit(2)
    assert filled(Slots(parts, LaunchOptions(gpus=("0:2", "MIG-0"))), None, None, None) == [("0:2",), ("0:0",), None]
    assert "`gpus_per_job`: 2 are more" in said_by(lambda: Slots(parts, LaunchOptions(), gpus_per_job=2))


def test_whole_gpus_beside_mig_devices_train_together() -> None:
    slots = Slots(Machine((*PARTS, *GPUS.gpus[1:3]), False, 8), LaunchOptions())
    assert filled(slots, 2, 1, 2) == [("1", "2"), ("0:0",), None]
    assert slots.could_fit(2)
    assert not slots.could_fit(3)
