"""The tree of exceptions: what is wrong, where, in which parameter, and how to fix it, each in a field of its own.

Classes that one room raises are defined there:

    AccelTrainError        raised on purpose; all that a caller needs to catch
      UserError            a mistake that the user can fix; shown without a traceback
        InvalidJob         a job file, or a parameter in it
        SetupUnusable      the queue, or this machine as it is set up
        run.lock.FolderInUse, queue.slurm.client.SlurmError, ...
      run.lock.LockLost    somebody else has taken over what this process worked on
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from accel_trainer.core.text import one_line


@dataclass(frozen=True)
class Problem:
    """One mistake. `str(problem)` is the line for people: "where: key: message; hint".

    message: what is wrong.
    where: the file or folder that it is in.
    key: the parameter of the job, or the key of the file, that has the wrong value.
    hint: how to fix it.
    option: the argument of the caller that has the wrong value, by its name in Python, such as `num_processes`.

    An option stands in backticks in the line, as others do that a message or hint names; `cli` prints them as flags.
    """

    message: str
    where: Path | str | None = None
    key: str | None = None
    hint: str | None = None
    option: str | None = None

    def __str__(self) -> str:
        option = f"`{self.option}`" if self.option is not None else None
        subject = " ".join(part for part in (option, self.key) if part is not None)
        line = ": ".join(str(part) for part in (self.where, subject or None, self.message) if part is not None)
        return one_line(line if self.hint is None else f"{line}; {self.hint}")


class AccelTrainError(Exception):
    """An error that this package raises on purpose, with one `Problem` or more.

    `details` has the problems, `problems` a line for each; `str(error)` joins the lines. A problem may be given as its
    message alone; the other arguments are the fields of the problems that are given so.
    """

    def __init__(
        self,
        *problems: Problem | str,
        where: Path | str | None = None,
        key: str | None = None,
        hint: str | None = None,
        option: str | None = None,
    ) -> None:
        self.details = tuple(
            Problem(problem, where, key, hint, option) if isinstance(problem, str) else problem for problem in problems
        )
        super().__init__(*self.details)

    def __str__(self) -> str:
        return "\n".join(self.problems)

    @property
    def problems(self) -> list[str]:
        """One line for each problem."""
        return [str(problem) for problem in self.details]

    def under(self, key: str | None) -> Self:
        """The same error, of another parameter: that by which the caller knows it."""
        return type(self)(*(replace(problem, key=key) for problem in self.details))

    def at(self, where: Path | str | None) -> Self:
        """The same error, of another file or folder."""
        return type(self)(*(replace(problem, where=where) for problem in self.details))

    def of_option(self, option: str | None) -> Self:
        """The same error, of an argument of the caller."""
        return type(self)(*(replace(problem, option=option) for problem in self.details))


class UserError(AccelTrainError):
    """A mistake that the user can fix. Its text is shown as it is, without a traceback."""


class SetupUnusable(UserError):
    """The queue, or this machine as the user has set it up, cannot be used: no mistake of a job."""


class InvalidJob(UserError):
    """A job file, or a parameter in it, is wrong: the job cannot be trained as it is."""
