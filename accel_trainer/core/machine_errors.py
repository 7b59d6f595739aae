"""Which errors of the system are the machine's, or a disk's of it, and which a user's mistake: the one table of them.

What is the machine's says nothing about a job: it is waited out, or the job is tried again later, as after a
preemption.
"""

import errno
import os
import secrets
import threading
from pathlib import Path

# What a wrong name gives: of what was never there before, a user's mistake. One that is too long, or leads through a
# file, is one always.
OF_A_PATH = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})
# What a missing permission gives: a user's mistake where something was never permitted, else the machine's.
OF_A_PERMISSION = frozenset({errno.EACCES, errno.EPERM})
USERS = OF_A_PATH | OF_A_PERMISSION

_MACHINES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk has failed",
    errno.EMFILE: "too many files are open in one process (`ulimit -n` allows more)",
    errno.ENFILE: "too many files are open on this machine",
}
# Of a fork, which names no file; of a call on a file it is no such thing.
_NO_TASKS = "no more threads or processes may be started (`ulimit -u`, or a container's limit of them, allows more)"
# As Python says the same of a thread, and the loader of programs that a library finds no memory.
_NO_THREAD, _NOT_MAPPED = "can't start new thread", "failed to map segment"
# What a process, or the machine, has no more of: it says nothing about a job, a queue or a command.
SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})
# The same of a disk's server; where no file is named, it is another server's, as that of a download.
_MACHINES_OF_A_FILE = {
    errno.ESTALE: "the disk was mounted anew",
    errno.ENOTCONN: "the disk is gone",
    errno.ENODEV: "the disk is gone",
    errno.ETIMEDOUT: "the disk's server does not answer",
    errno.EHOSTUNREACH: "the disk's server does not answer",
    errno.EHOSTDOWN: "the disk's server does not answer",
    errno.ENETUNREACH: "the disk's server does not answer",
    errno.ESHUTDOWN: "the disk's server has shut us out",
}
# Those that not every system has.
_MACHINES_OF_A_FILE |= {
    getattr(errno, name): why
    for name, why in (
        ("EREMOTEIO", "the disk has failed"),
        ("EUCLEAN", "the file system is damaged"),
        ("EKEYEXPIRED", "the key to the disk has expired"),
        ("ENOKEY", "the key to the disk is missing"),
    )
    if hasattr(errno, name)
}
# What may be over in a moment, as of a disk whose server is away: it is tried again (`core.disk_calls`). What is full,
# read-only or damaged stays so until somebody does something.
PASSING = frozenset({errno.EIO, *_MACHINES_OF_A_FILE}) - {getattr(errno, "EUCLEAN", None)}
_PERMISSION_IS_GONE = "permission is missing"
# What a person can do about what may pass.
_HELP = {
    errno.EIO: "see what the system says of the disk (`dmesg`) or its server",
    errno.ESTALE: "mount it again, or wait until its server has it again",
    errno.ENOTCONN: "what served the mount has ended: unmount it (`umount -l`) and mount it again",
    errno.ENODEV: "mount it again",
}
# What is scarce, where no file is named, and how there may be more of it.
_NEEDED = {number: _MACHINES[number] for number in (errno.EMFILE, errno.ENFILE)} | {
    errno.EAGAIN: _NO_TASKS,
    errno.ENOMEM: "this process can have no more memory (`ulimit -v`, or a container's limit of it, allows more)",
}
_HELP_OF_SERVER = "see whether its server is up and can be reached"
# In the words of an error that was waited out in vain.
TRIED_FOR = " (tried for "
# What compilers and libraries say that raise no error of the system.
_IN_WORDS = {os.strerror(number): _MACHINES[number] for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE)}
_IN_WORDS[_NO_THREAD] = _NO_TASKS
_IN_A_LINE = {os.strerror(number): why for number, why in _MACHINES.items()}
_IN_A_LINE |= {_NO_THREAD: _NO_TASKS, os.strerror(errno.EAGAIN): _NO_TASKS}
_NO_TEMPORARY_FOLDER = "No usable temporary directory"
# How much is written to see whether anything can be.
TRIAL_BYTES = 64 * 1024


def why_of_machine(error: BaseException | None, *, was_writable: bool = False) -> str | None:
    """What is wrong with the machine where an error, or what caused it, is the machine's; None of any other error.

    was_writable: whether the file could be written before, so that a permission that is missing is one that has gone.
    """
    while error is not None:
        if isinstance(error, OSError):
            why = _why(error, was_writable)
        else:
            is_told = isinstance(error, RuntimeError)
            why = next((why for words, why in _IN_WORDS.items() if is_told and words in str(error)), None)
        if why is not None:
            return why
        error = error.__cause__
    return None


def _why(error: OSError, was_writable: bool) -> str | None:
    if was_writable and error.errno in OF_A_PERMISSION:
        return _PERMISSION_IS_GONE
    if (error.strerror or "").startswith(_NO_TEMPORARY_FOLDER):
        return "no temporary file can be written"
    if error.errno in _MACHINES_OF_A_FILE and error.filename is not None:
        return _MACHINES_OF_A_FILE[error.errno]
    if error.errno == errno.EAGAIN and error.filename is None:
        return _NO_TASKS
    return _MACHINES.get(error.errno or 0)


def is_scarce(error: OSError) -> bool:
    """Whether the process, or the machine, has no more of something, whatever file it was to be for."""
    return error.errno in SCARCE and (error.filename is None or error.errno in (errno.EMFILE, errno.ENFILE))


def as_system_error(error: BaseException) -> OSError | None:
    """The error of the system that is behind one of Python's own, where it is for want of something (`SCARCE`): a
    thread that does not start, memory, a library that cannot be loaded. None of any other."""
    match error:
        case OSError():
            number = error.errno if is_scarce(error) else None
        case RuntimeError() if _NO_THREAD in str(error):
            number = errno.EAGAIN
        case MemoryError():
            number = errno.ENOMEM
        case ImportError():
            words = {os.strerror(number): number for number in SCARCE} | {_NOT_MAPPED: errno.ENOMEM}
            number = next((number for said, number in words.items() if said in str(error)), None)
        case _:
            number = None
    return OSError(number, os.strerror(number)) if number in SCARCE else None


def what_helps(error: OSError) -> str | None:
    """What a person can do about a disk that is away; None of any other error."""
    return _HELP.get(error.errno or 0, _HELP_OF_SERVER) if error.errno in PASSING else None


def told(error: OSError) -> str:
    """The system's own words for an error, and of a disk that is away what they mean and what to do."""
    words = error.strerror or str(error)
    if is_scarce(error):
        return f"{words}: {_NEEDED[error.errno or 0]}"
    if error.errno is None or (helps := what_helps(error)) is None:
        return words
    return f"{words}: {(_MACHINES | _MACHINES_OF_A_FILE)[error.errno]}; {helps}"


def lack_of_threads() -> OSError | None:
    """The error of the system where this process can start no thread."""
    try:
        threading.Thread(target=os.getpid, daemon=True).start()
    except RuntimeError as error:
        return as_system_error(error)
    return None


def why_of_machine_in(line: str) -> str | None:
    """The same of the last line of a process that could not say more."""
    found = next((why for words, why in _IN_A_LINE.items() if words in line), None)
    return "the disk is gone" if found is None and TRIED_FOR in line else found


def try_to_write(folder: Path, num_bytes: int = TRIAL_BYTES) -> float:
    """Write a file in a folder, make it durable and remove it; the time that the folder's disk gave it: an empty one
    is made for that alone. Raises OSError, which names it."""
    trial = folder / f".probe-{secrets.token_hex(4)}"
    try:
        try:
            with trial.open("xb", buffering=0) as file:
                if num_bytes:
                    _write_all(file.fileno(), num_bytes)
                    os.fsync(file.fileno())
                when = os.fstat(file.fileno()).st_mtime
        finally:  # when it is closed: a network drive would keep it until then, under another name
            _remove(trial)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(trial)) from error
    return when


def _remove(path: Path) -> None:
    """Remove a file, if there is one; it may be done, and the answer lost."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        path.unlink(missing_ok=True)


def _write_all(descriptor: int, num_bytes: int) -> None:
    left = num_bytes
    while left:
        left -= os.write(descriptor, bytes(min(left, 2**20)))
