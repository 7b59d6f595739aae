"""Reading what others may have put there: a file is read only if it is one, and only if it is not too large.

Folders that are shared can hold pipes, which block whoever opens them, links to devices that never end, and JSON that
is nested until Python gives up.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MEBIBYTE = 2**20


def read_bytes(path: str | Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """The content of a regular file. Raises OSError, whose strerror says what else it is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW))
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        content = b""
        if about.st_size <= max_bytes:
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(about.st_size + 1)  # one byte more tells of a file that has grown meanwhile
    finally:
        os.close(descriptor)
    if max(about.st_size, len(content)) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes // 1024:,} KiB", str(path))
    return content


def read_text(path: Path, max_bytes: int) -> str:
    """As `read_bytes`; what is not UTF-8 is replaced."""
    return read_bytes(path, max_bytes).decode(errors="replace")


def read_json(path: Path, max_bytes: int = 16 * MEBIBYTE) -> Any:
    """What is in a JSON file. Raises OSError or ValueError."""
    try:
        return json.loads(read_bytes(path, max_bytes))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
