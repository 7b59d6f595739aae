"""In which line of a job file each of its keys stands."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from accel_trainer.config.base import base_file
from accel_trainer.config.job_text import read_bytes
from accel_trainer.core.errors import InvalidJob

_TOKEN = re.compile(r"""(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<mark>[\[\]{}:])|(?P<line>\n)|\S""")


def key_lines(text: str) -> dict[str, int]:
    """The line of each key, as `optimizer_args.lr`, counted from 1; of one that is given twice, the last. What is not
    JSON is read as far as it resembles it."""
    found: dict[str, int] = {}
    above: list[str] = []
    key, key_line, line = "", 1, 1
    for token in _TOKEN.finditer(text):
        if token["line"]:
            line += 1
        elif token["string"]:
            key, key_line = _unquoted(token[0]), line
        elif token[0] == ":":
            found[".".join([*filter(None, above), key])] = key_line
        elif token[0] == "{":
            above.append(key)
        elif token[0] == "[":
            above.append("")
            key = ""
        elif token[0] in "]}" and above:
            above.pop()
    return found


def lines_of_file(path: Path) -> Mapping[str, tuple[Path, int]]:
    """Where the keys of a job file stand, in it or in its base; nothing of what cannot be read, or has one line."""
    found: dict[str, tuple[Path, int]] = {}
    for file in filter(None, (base_file(path), path)):
        with suppress(InvalidJob):
            text = read_bytes(file).decode(errors="replace")
            if "\n" in text.strip():
                found |= {key: (file, line) for key, line in key_lines(text).items()}
    return found


def _unquoted(text: str) -> str:
    with suppress(ValueError):
        return str(json.loads(text))
    return text[1:-1]
