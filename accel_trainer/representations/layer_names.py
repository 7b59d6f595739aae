"""What features are called: a layer, and the cycle in which it was called."""

import re

_CYCLE = re.compile(r"(?P<layer>.+)-t(?P<cycle>\d{1,9})", re.ASCII)


def layer_and_cycle(name: str) -> tuple[str, int | None]:
    """("V1", 2) of V1-t2; ("V1", None) of V1."""
    match = _CYCLE.fullmatch(name)
    return (name, None) if match is None else (match["layer"], int(match["cycle"]))
