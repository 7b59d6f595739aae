"""How a launched worker that trains nothing answers: one JSON object in a file, or {"problems": [...]} for mistakes.

Exit codes and output tell nothing.
"""

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accel_trainer.core.errors import UserError
from accel_trainer.core.files import write_atomic
from accel_trainer.run.log import begin_logging

log = logging.getLogger(__name__)


def answer(path: Path, rank: int, find: Callable[[], dict[str, Any]]) -> int:
    """Write what is found, on rank 0; the exit code for people. Every rank calls it."""
    begin_logging(None, rank)
    try:
        found = find()
    except UserError as mistake:
        log.error("error: %s", mistake)
        found = {"problems": mistake.problems}
    except BaseException:
        traceback.print_exc()
        return 1
    if rank == 0:
        write_atomic(path, json.dumps(found), durable=False)
    return 2 if "problems" in found else 0
