"""What the tests' network drives and machines claim to be."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import wait_until
from network.machines import BOOT_ID

pytestmark = pytest.mark.slow


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_what_one_client_remembers_another_has_changed(mount):
    one, other = mount("one", entry_s=30, negative_s=30, listing_s=30), mount("other")
    (one.folder / "a").write_text("a")
    assert names(one.folder) == ["a"]
    assert not (one.folder / "b").exists()
    (other.folder / "a").rename(other.folder / "b")
    assert names(one.folder) == ["a"]
    assert not (one.folder / "b").exists()
    (one.folder / "c").touch()
    assert set(names(one.folder)) == {"b", "c"}, "what it has changed itself is listed anew"


def test_a_rename_is_done_and_its_answer_lost(mount):
    one = mount("one", lost_replies=1, lost_only="a")
    (one.folder / "a").touch()
    with pytest.raises(FileNotFoundError):
        (one.folder / "a").rename(one.folder / "b")
    assert names(one.server) == ["b"]
    with pytest.raises(FileExistsError):
        os.link(one.folder / "b", one.folder / "a")
    assert set(names(one.server)) == {"a", "b"}


def test_errors_and_hangs_come_on_command(mount):
    one = mount("one")
    one.obey(error="ESTALE", ops=["open"])
    (one.folder / "made").mkdir()
    (one.server / "a").touch()
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        (one.folder / "a").read_bytes()
    one.obey(hang=True)
    reader = threading.Thread(target=lambda: (one.folder / "a").read_bytes(), daemon=True)
    reader.start()
    time.sleep(0.3)
    assert reader.is_alive()
    one.obey()
    reader.join(10)
    assert not reader.is_alive()


def test_a_mount_goes_with_a_process_that_is_killed(tmp_path, mount):
    mount("one")  # where that is possible
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal\n"
        "from network.mounts import server_folder, worst_fs\n"
        "with server_folder() as server, worst_fs(server, 'one') as one:\n"
        "    print(one.process.pid, one.folder, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = [sys.executable, str(program)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    output = subprocess.run(words, capture_output=True, text=True, env=environment).stdout
    pid, folder = output.split()
    wait_until(lambda: not Path("/proc", pid).exists(), 10)
    wait_until(lambda: folder not in Path("/proc/mounts").read_text(), 10)
    shutil.rmtree(Path(folder).parent.parent)


def test_sshfs_is_mounted_twice_with_its_default_caches(mount_sshfs):
    one, other = mount_sshfs("one"), mount_sshfs("other")
    (one.folder / "a").write_text("a")
    assert (other.folder / "a").read_text() == "a"
    assert names(other.folder) == ["a"]
    (one.folder / "b").write_text("b")
    assert names(other.folder) == ["a"]


def test_a_machine_has_a_name_ids_and_processes_of_its_own(mount, machines, tmp_path):
    shared, one = tmp_path / "shared", mount("one")
    shared.mkdir()
    grey, rey = machines("grey", {one.folder: shared}), machines("rey", {one.folder: shared})
    script = "hostname; cat /proc/sys/kernel/random/boot_id; ls /proc | grep -c '^[0-9]'; echo $0 >> here"
    seen = []
    for where in (grey, rey):
        words = [*where.entering(shared), "sh", "-c", script]
        seen.append(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split())
    assert [lines[0] for lines in seen] == ["grey", "rey"]
    assert seen[0][1] != seen[1][1] != BOOT_ID.read_text().strip()
    assert int(seen[0][2]) < 10, "no processes of others"
    assert len((one.server / "here").read_text().split()) == 2
    done = grey.run("status", cwd=shared)
    assert (done.returncode, "no queue" in done.stdout) == (3, True)


def test_a_machine_is_killed_whole(machines, tmp_path):
    grey = machines("grey")
    words = [*grey.entering(tmp_path), "sh", "-c", "setsid sleep 1000 & echo $!; sleep 1000"]
    inside = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    inside.stdout.readline()
    marker = Path("/proc", str(grey.pid))
    grey.kill()
    assert inside.wait(10) != 0
    wait_until(lambda: not marker.exists(), 10)
