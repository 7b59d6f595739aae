"""The table of errors: which are the machine's, and which a user's mistake."""

import errno
import os
from pathlib import Path

import pytest

from accel_trainer.core.errors import UserError
from accel_trainer.core.machine_errors import as_system_error, told, try_to_write, why_of_machine, why_of_machine_in

MACHINES = ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EMFILE", "ENFILE", "ESTALE", "ENOTCONN", "ENODEV", "ETIMEDOUT")
MACHINES += ("EHOSTDOWN", "ENETUNREACH", "ESHUTDOWN", "EREMOTEIO", "EUCLEAN", "EKEYEXPIRED", "ENOKEY")
USERS = ("EACCES", "EPERM", "ENOENT", "ENOTDIR", "EISDIR", "ENAMETOOLONG", "ELOOP", "EINVAL", "EFBIG", "EEXIST")


def error(name: str, file: str | None = "/models/run/status.json") -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), file) if file else OSError(number, os.strerror(number))


@pytest.mark.parametrize("name", MACHINES)
def test_what_a_disk_or_machine_cannot_do_is_no_mistake_of_a_job(name: str) -> None:
    assert why_of_machine(error(name))


@pytest.mark.parametrize("name", USERS)
def test_a_wrong_name_or_a_permission_that_never_was_is_the_users_mistake(name: str) -> None:
    assert why_of_machine(error(name)) is None


def test_a_permission_is_the_machines_only_where_it_has_gone() -> None:
    assert why_of_machine(error("EACCES"), was_writable=True) == "permission is missing"
    assert why_of_machine(error("ENOTDIR"), was_writable=True) is None


def test_the_server_of_a_download_is_no_disk() -> None:
    assert why_of_machine(error("ETIMEDOUT", file=None)) is None
    assert why_of_machine(error("ENOSPC", file=None)) == "the disk is full"


def test_what_caused_an_error_counts_and_what_a_library_says() -> None:
    mistake = UserError("cannot write")
    mistake.__cause__ = error("EROFS")
    assert why_of_machine(mistake) == "the disk is read-only"
    assert why_of_machine(RuntimeError("ptxas fatal: No space left on device")) == "the disk is full"
    assert why_of_machine(ValueError("No space left on device")) is None
    assert why_of_machine(FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"))


def test_a_lack_of_threads_or_processes_is_the_machines() -> None:
    assert "ulimit -u" in (why_of_machine(RuntimeError("can't start new thread")) or "")
    assert "ulimit -u" in (why_of_machine(error("EAGAIN", file=None)) or "")  # a fork
    assert why_of_machine(error("EAGAIN")) is None  # a lock that another has
    assert why_of_machine_in("libgomp: Thread creation failed: Resource temporarily unavailable")
    assert why_of_machine_in("RuntimeError: can't start new thread")


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (RuntimeError("can't start new thread"), "EAGAIN"),
        (MemoryError(), "ENOMEM"),
        (ImportError("libx.so: cannot open shared object file: Too many open files"), "EMFILE"),
        (ImportError("libx.so: failed to map segment from shared object"), "ENOMEM"),
        (error("EMFILE"), "EMFILE"),
        (ImportError("No module named 'x'"), None),
        (RuntimeError("no"), None),
        (error("ENOMEM"), None),  # of a file's system
        (error("ENOENT"), None),
    ],
)
def test_what_python_tells_of_a_lack_is_an_error_of_the_system(found: Exception, name: str | None) -> None:
    scarce = as_system_error(found)
    assert (None if scarce is None else errno.errorcode[scarce.errno or 0]) == name
    assert scarce is None or "allows more" in told(scarce)


def test_the_last_line_of_a_process_tells_the_same() -> None:
    assert why_of_machine_in("OSError: [Errno 28] No space left on device: '/x'") == "the disk is full"
    assert why_of_machine_in("ValueError: no") is None


def test_a_trial_leaves_nothing_and_names_what_it_could_not_write(tmp_path: Path) -> None:
    assert try_to_write(tmp_path) > 0
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(FileNotFoundError) as caught:
        try_to_write(tmp_path / "none")
    assert str(caught.value.filename).startswith(str(tmp_path / "none"))
