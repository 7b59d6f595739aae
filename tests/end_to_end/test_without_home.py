"""A training by somebody whom the machine hardly knows: no home, or none to write in, and no account."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import COMMAND, write_job
from tiny_runs import TINY

pytestmark = pytest.mark.slow
NOBODYS = 54321


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can be somebody else")
@pytest.mark.parametrize("home", [None, "/proc/nowhere"], ids=["no HOME", "HOME that cannot be made"])
def test_a_user_without_a_home_and_without_an_account_trains(home: str | None, tmp_path: Path) -> None:
    job = write_job(Path("job.json"), **TINY, model_dir="runs")
    # What the tests run from may be readable by root alone.
    reads = ["--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"]
    user = ["setpriv", f"--reuid={NOBODYS}", f"--regid={NOBODYS}", "--clear-groups", *reads]
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    environment |= {} if home is None else {"HOME": home}
    done = subprocess.run(
        [*user, *COMMAND, "train", str(job)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = Path("runs").rglob("performance.csv")
    assert record.stat().st_uid == NOBODYS
    assert len(record.read_text().splitlines()) == 1 + 2, "training and validation of one epoch"
