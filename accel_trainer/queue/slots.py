"""Slots: how many jobs train side by side on this machine, and which devices and cores each of them has."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from accel_trainer.core.errors import UserError
from accel_trainer.launch.command import LaunchOptions
from accel_trainer.launch.machine import Machine


@dataclass(frozen=True)
class Allocation:
    """What one job has of the machine; no GPUs where it trains on something else."""

    gpus: tuple[str, ...] = ()
    cores: int = 1

    def machine(self, machine: Machine) -> Machine:
        """The machine as the job sees it."""
        return machine.share(self.cores)

    def options(self, options: LaunchOptions) -> LaunchOptions:
        """The options with the GPUs of this place."""
        return replace(options, gpus=self.gpus) if self.gpus else options


class Slots:
    """The places of one machine, and which are taken.

    Unless less is asked for, one job has all GPUs. On a machine without GPUs a place is a part of the cores.
    """

    def __init__(
        self,
        machine: Machine,
        options: LaunchOptions,
        *,
        gpus_per_job: int | None = None,
        jobs_per_gpu: int = 1,
        slots: int | None = None,
        jobs: int | None = None,
    ) -> None:
        """jobs: so many at most, each on one GPU unless `gpus_per_job` says more; without GPUs the same as `slots`.

        Raises UserError for what the machine has not.
        """
        gpus = machine.gpus if options.gpus is None else machine.chosen(options.gpus)
        self.gpus = tuple(gpu.index for gpu in gpus)
        # Of MIG devices each trains a job by itself.
        self._whole = tuple(gpu.index for gpu in gpus if not gpu.is_part)
        if gpus_per_job is None and self.gpus and (jobs is not None or len(self._whole) < len(gpus)):
            gpus_per_job = 1
        if jobs is not None and slots is not None:
            raise UserError("`jobs` and `slots` say the same", hint="leave one of them out")
        if self.gpus and slots is not None:
            raise UserError("`slots` is for machines without GPUs", hint="use `gpus_per_job` and `jobs_per_gpu`")
        if not self.gpus and (gpus_per_job is not None or jobs_per_gpu > 1):
            raise UserError("`gpus_per_job`, `jobs_per_gpu`: no GPU was found on this machine", hint="use `slots`")
        for option, count in (("gpus_per_job", gpus_per_job), ("num_processes", options.num_processes)):
            if self.gpus and count is not None and count > self._most_of_a_job:
                raise UserError(f"{count} are more than there are, {self._most_of_a_job}", option=option)
        # GPUs that were named, and nothing more, are for each job in turn: an option overrides what a job has.
        self._is_shared = gpus_per_job is not None or jobs_per_gpu > 1 or options.gpus is None
        self._gpus_per_job = gpus_per_job if gpus_per_job is not None else len(self.gpus)
        self._jobs_per_gpu, self._slots, self._cores = jobs_per_gpu, slots or jobs or 1, machine.cores
        self._most_jobs = jobs
        self._most_cpu_processes = machine.most_cpu_processes
        self._taken: list[Allocation] = []

    @property
    def _most_of_a_job(self) -> int:
        return max(1, len(self._whole))

    @property
    def number(self) -> int:
        """How many jobs of the usual size there is room for, when nothing is running."""
        if not self.gpus:
            return self._slots
        room = max(1, len(self.gpus) * self._jobs_per_gpu // self._gpus_per_job)
        return room if self._most_jobs is None else min(room, self._most_jobs)

    def __str__(self) -> str:
        """How jobs share the GPUs of a machine that has several; "" on others."""
        if len(self.gpus) < 2:
            return ""
        if self.number == 1:
            way_out = f"; --jobs {len(self.gpus)} gives each job one" if self._gpus_per_job > 1 else ""
            has = f"all {len(self.gpus)} GPUs" if self._gpus_per_job == len(self.gpus) else _gpus(self._gpus_per_job)
            return f"one job after the other, each on {has}{way_out}"
        return f"{self.number} jobs at once, each on {_gpus(self._gpus_per_job)}"

    @property
    def is_full(self) -> bool:
        """Whether there is no room for any job."""
        load = self._load()
        taken = bool(self.gpus) and all(load[gpu] >= self._jobs_per_gpu for gpu in self.gpus)
        return taken or self._places_left == 0

    @property
    def unused_gpus(self) -> list[str]:
        """GPUs on which none of our jobs is."""
        load = self._load()
        return [gpu for gpu in self.gpus if not load[gpu]]

    def could_fit(self, num_processes: int | None) -> bool:
        """Whether there is room for a job of so many processes when nothing else is running."""
        if not self.gpus:
            return (num_processes or 1) <= self._most_cpu_processes
        return self._wanted(num_processes) <= self._most_of_a_job

    def fit(self, num_processes: int | None, occupied: Collection[str] = ()) -> Allocation | None:
        """The place that a job would have now, those GPUs left out that others occupy; None: there is no room."""
        if self._places_left == 0:
            return None
        if not self.gpus:
            return Allocation(cores=max(1, self._cores // self._slots))
        wanted, load = self._wanted(num_processes), self._load()
        fitting = self.gpus if wanted == 1 else self._whole
        free = [gpu for gpu in fitting if load[gpu] < self._jobs_per_gpu and gpu not in occupied]
        if len(free) < wanted:
            return None
        emptiest = sorted(sorted(free, key=lambda gpu: load[gpu])[:wanted], key=self.gpus.index)
        part = wanted / (len(self.gpus) * self._jobs_per_gpu)
        return Allocation(tuple(emptiest), max(1, int(self._cores * part)))

    def fit_after(self, left: Allocation, num_processes: int | None) -> Allocation | None:
        """The place that a job will have when this one is left."""
        self.leave(left)
        try:
            return self.fit(num_processes)
        finally:
            self.take(left)

    def take(self, place: Allocation) -> None:
        """Note that a job has this place."""
        self._taken.append(place)

    def leave(self, place: Allocation) -> None:
        """Note that the job of this place is over."""
        self._taken.remove(place)

    @property
    def _places_left(self) -> int | None:
        """How many more jobs there may be; None where only the GPUs decide."""
        most = self._most_jobs if self.gpus else self._slots
        return None if most is None else most - len(self._taken)

    def _wanted(self, num_processes: int | None) -> int:
        return self._gpus_per_job if num_processes is None or not self._is_shared else num_processes

    def _load(self) -> Counter[str]:
        """How many jobs are on each GPU."""
        return Counter(gpu for place in self._taken for gpu in place.gpus)


def _gpus(number: int) -> str:
    return "a GPU of its own" if number == 1 else f"{number} GPUs"
