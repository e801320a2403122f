"""The jail of custom tasks on this machine's own kernel; its root is this machine's tree, by a bind mount."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from snf_image_helper.custom_task import UNSHARE

TREE = Path(__file__).resolve().parents[3]
OUTSIDE = 'mount --bind / "$1"; mount -o remount,bind,nosuid,nodev,noexec "$1"; shift; exec "$@"'
JAIL = "from snf_image_helper.jail import main; main()"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def jailed(folder: Path, script: str, *, outside: str = OUTSIDE) -> subprocess.CompletedProcess[str]:
    """Run a script in the jail, from a mount namespace of its own so that nothing of this machine changes."""
    return subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-ec", outside, "sh", folder),
            *(*UNSHARE, sys.executable, "-B", "-c", JAIL, folder),
        ],
        input=script,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": f"{TREE}:{TREE / 'snf-image-helper'}", "A": "b"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_script_runs_with_its_environment_and_status(tmp_path: Path) -> None:
    done = jailed(tmp_path, "echo $A; pwd; id -u; cat; exit 3\n")
    assert (done.returncode, done.stdout) == (3, "b\n/\n0\n"), done.stderr


def test_programs_of_a_file_system_below_the_root_run_too(tmp_path: Path) -> None:
    """As of a separate /usr, which is mounted noexec like all of an image."""
    below = 'mount --bind /usr/bin "$1/mnt"; mount -o remount,bind,nosuid,nodev,noexec "$1/mnt"; '
    outside = OUTSIDE.replace("shift; ", f'{below}! "$1/mnt/id" 2>&-; shift; ')
    done = jailed(tmp_path, "/mnt/id -u\n", outside=outside)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_the_first_line_names_the_program(tmp_path: Path) -> None:
    done = jailed(tmp_path, "#!/usr/bin/tail -n1\nthe second line\n")
    assert done.stdout == "the second line\n", done.stderr


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = jailed(tmp_path, "#!/no/such/program\n")
    assert done.returncode == 126 and "No such file" in done.stderr


def test_nothing_of_the_machine_is_in_sight(tmp_path: Path) -> None:
    mounts = jailed(tmp_path, "cut -d' ' -f5 /proc/self/mountinfo\n").stdout.split()
    assert sorted(mounts) == ["/", "/dev", "/proc", "/run", "/tmp"]
    devices = jailed(tmp_path, "find /dev -type b -o -type c | sort\n").stdout.split()
    assert devices == ["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"]
    assert jailed(tmp_path, "ls -d /proc/[0-9]* | wc -l\n").stdout.strip() in ("2", "3")
    assert jailed(tmp_path, "tail -n +3 /proc/net/dev | cut -d: -f1\n").stdout.split() == ["lo"]


@pytest.mark.parametrize(
    "attempt",
    [
        "mknod /tmp/disk b 254 0",
        "mknod /tmp/line c 4 65",
        "mount -t tmpfs x /tmp",
        "mount -o remount,rw /proc",
        "echo '|/tmp/x' > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "unshare --mount true",
        "nsenter --target 1 --mount --root=/proc/1/root ls /sys/class",
        "hostname other",
    ],
)
def test_there_is_no_way_out(tmp_path: Path, attempt: str) -> None:
    done = jailed(tmp_path, f"{attempt} && echo out\nexit 0\n")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("attempt", ["mount -t tmpfs x /tmp", "mknod /tmp/$$ c 4 65", "hostname other"])
def test_outside_of_the_jail_there_would_be_a_way(attempt: str) -> None:
    """The control: the same namespaces, without what the jail takes away."""
    script = f"mount -t tmpfs x /tmp; {attempt} && echo out"
    done = subprocess.run([*UNSHARE, "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "out\n", done.stderr


def test_no_capability_comes_back(tmp_path: Path) -> None:
    status = jailed(tmp_path, "grep -E '^(CapBnd|CapPrm|CapEff|NoNewPrivs)' /proc/self/status\n").stdout.split()
    values = dict(zip(status[::2], status[1::2], strict=True))
    assert values["CapBnd:"] == values["CapPrm:"] == values["CapEff:"] == "00000000a00401fb"
    assert values["NoNewPrivs:"] == "1"


def test_what_it_leaves_running_ends_with_it(tmp_path: Path) -> None:
    mark = f"snf-image-left-{os.getpid()}"
    jailed(tmp_path, f"sh -c 'exec -a {mark} sleep 300' & exit 0\n")
    running = [p for p in Path("/proc").glob("[0-9]*/cmdline") if mark.encode() in _read(p)]
    assert running == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
