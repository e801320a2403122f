"""The lab about itself: a second lab beside the one in use, sharing its cache, killed, resumed, cut, taken down."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from snf_lab.lab import Lab
from snf_lab.progress import Progress
from snf_lab.state import TREE, VARIABLE, State

from synnefo_light.run import Completed, run


class SecondLab:
    """`./lab` as a person would type it, with a state directory of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lab = Lab(State(path), Progress())

    def __call__(self, *words: str, ok: tuple[int, ...] = (0,), stdin: bytes | None = None) -> Completed:
        return run([TREE / "lab", *words], env={VARIABLE: str(self.path)}, ok=ok, stdin=stdin, timeout_s=400)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, VARIABLE: str(self.path)}
        return subprocess.Popen([TREE / "lab", *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def traces(self) -> list[str]:
        """What of this lab is on the machine, asked of other tools than the lab uses."""
        processes = run(["pgrep", "--full", "--list-full", f"directory={self.path}"], ok=(0, 1), timeout_s=20).text
        mounts = run(["findmnt", "--list", "--noheadings", "--output=TARGET"], timeout_s=20).text
        loops = run(["losetup", "--list", "--noheadings", "--output=BACK-FILE"], timeout_s=20).text
        groups = run(["find", "/sys/fs/cgroup", "-name", self.lab.state.name], timeout_s=20).text
        return [
            *processes.splitlines(),
            *(line for line in mounts.splitlines() if line.startswith(str(self.path))),
            *(line for line in loops.splitlines() if "second-lab" in line),
            *groups.splitlines(),
            *map(str, self.path.glob("run")),
            *map(str, Path("/run/systemd/nspawn").glob(f"propagate/{self.lab.state.name}*")),
        ]


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondLab]:
    path = tmp_path_factory.mktemp("lab")
    (path / "cache").symlink_to(Lab.open().state.cache)
    lab = SecondLab(path)
    yield lab
    lab("down")


def test_a_lab_that_is_killed_while_it_is_made_is_taken_down_whole(second: SecondLab) -> None:
    making = second.start("up")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not _on(second):
        time.sleep(0.1)
    making.send_signal(signal.SIGKILL)
    making.wait(30)
    assert second.traces(), "the lab was killed before there was anything to take down"
    second("down")
    assert second.traces() == []
    second("down")


def test_a_lab_that_was_interrupted_is_brought_up_by_running_it_again(second: SecondLab) -> None:
    making = second.start("up")
    begun = second.path / "run" / "cluster-begun"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not begun.exists():
        time.sleep(0.1)
    time.sleep(2)
    making.send_signal(signal.SIGTERM)
    assert making.wait(30) == 130
    second("up")
    second("x", "1", "gnt-cluster", "verify", "--ignore-errors=ENODESETUP")


def test_a_command_on_a_node_gives_its_status_and_takes_our_input(second: SecondLab) -> None:
    done = second("x", "1", "sh", "-c", "cat; echo to-stderr >&2; exit 7", ok=(7,), stdin=b"given\n")
    assert (done.stdout, done.stderr) == (b"given\n", b"to-stderr\n")


def test_a_node_has_no_way_out(second: SecondLab) -> None:
    routes = json.loads(second("x", "1", "ip", "-json", "route").stdout)
    assert {route["dst"] for route in routes} == {"10.78.0.0/24", "10.78.1.0/24"}


def test_a_power_cut_ends_everything_of_a_node_but_its_disk(second: SecondLab) -> None:
    node = second.lab.node(1)
    node.write("/srv/second-lab-disk", bytes(1 << 20))
    device = node.run(["losetup", "--find", "--show", "/srv/second-lab-disk"]).text.strip()
    assert any("second-lab-disk" in line for line in second.traces())
    second("crash", "1")
    assert [line for line in second.traces() if "second-lab-disk" in line or "--directory" in line] == []
    assert node.find_pid() is None
    second("x", "1", "true", ok=(3,))

    second("boot", "1")
    assert node.exists("/srv/second-lab-disk")
    assert not any("second-lab-disk" in line for line in second.traces()), device
    assert node.run(["gnt-cluster", "getmaster"], timeout_s=60).text.strip() == node.name


def test_down_leaves_nothing_of_a_running_lab(second: SecondLab) -> None:
    node = second.lab.node(1)
    node.write("/srv/ganeti/shared-file-storage/second-lab-shared", bytes(1 << 20))
    node.run(["losetup", "--find", "/srv/ganeti/shared-file-storage/second-lab-shared"])
    second("down")
    assert second.traces() == []
    assert {entry.name for entry in second.path.iterdir()} == {"cache", "lock"}


def _on(second: SecondLab) -> bool:
    with contextlib.suppress(Exception):
        return second.lab.node(1).find_pid() is not None
    return False
