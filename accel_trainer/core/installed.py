"""The packages that are installed."""

import re
from importlib.metadata import distribution


def version_of(package: str) -> str:
    """The version of an installed package, of whose description nothing else is parsed: that of some is a book. Raises
    PackageNotFoundError."""
    found = distribution(package)
    headers, _, _ = (found.read_text("METADATA") or "").partition("\n\n")
    line = re.search(r"^Version: *(\S+)", headers, re.MULTILINE)
    return found.version if line is None else line[1]
