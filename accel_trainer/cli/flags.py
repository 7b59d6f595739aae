"""Errors name the arguments of a caller as in Python, in backticks; at the command line they are flags."""

import re
from functools import cache

_NAMED = re.compile(r"`([a-z][a-z_]*)`")


def with_flags(line: str) -> str:
    """A line of an error with `num_processes` as --num-processes, wherever that is the name of a flag of some verb."""
    if "`" not in line:
        return line
    flags = _flags()
    return _NAMED.sub(lambda named: flags.get(named[1], named[0]), line)


@cache
def _flags() -> dict[str, str]:
    """Each flag of the command line by its name in Python: `num_processes` is --num-processes."""
    from typer.core import TyperGroup
    from typer.main import get_command

    from accel_trainer.cli.app import app

    main = get_command(app)
    verbs = list(main.commands.values()) if isinstance(main, TyperGroup) else [main]
    flags = [flag for verb in verbs for parameter in verb.params for flag in parameter.opts if flag.startswith("--")]
    return {flag.removeprefix("--").replace("-", "_"): flag for flag in flags}
