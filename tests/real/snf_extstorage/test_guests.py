"""`snf-store snapshot` as it is called, with QEMU and the agent played where Ganeti would have them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from snf_extstorage.monitor import SOCKETS

from tests.guest_sockets import Agent, Order, Qemu
from tests.real.snf_extstorage.places import Site
from tests.real.snf_extstorage.test_scripts import COMMAND, snf_store

UUIDS = ("efa8d6e0-c062-4b14-b829-467e6499f266", "0fa8d6e0-c062-4b14-b829-467e6499f267")


@pytest.fixture
def instance() -> Iterator[str]:
    SOCKETS.mkdir(parents=True, exist_ok=True)
    yield f"cut-{uuid4()}"


@pytest.fixture
def qemu(instance: str) -> Iterator[Qemu]:
    made = Qemu(SOCKETS, instance)
    yield made
    made.close()


@pytest.fixture
def agent(instance: str) -> Iterator[Agent]:
    made = Agent(SOCKETS, instance)
    yield made
    made.close()


@pytest.fixture
def volumes(site: Site, instance: str) -> list[str]:
    """Two disks that node1 has open, as when the instance runs there."""
    assert snf_store(site, "init").returncode == 0
    made = [f"{uuid4()}.ext.disk{n}" for n in range(2)]
    for name, uuid in zip(made, UUIDS, strict=True):
        for script, more in (
            ("create", {"VOL_SIZE": "8"}),
            ("setinfo", {"VOL_METADATA": f"originstname+{instance}"}),
            ("open", {"VOL_OPEN_EXCLUSIVE": "True"}),
        ):
            done = site.script(script, name, VOL_UUID=uuid, **more)
            assert done.returncode == 0, done.stderr
    return made


def snapshots(site: Site) -> list[str]:
    return sorted(name.rpartition("-")[0] for name in site.place.names("snapshots"))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_several_disks_are_cut_while_the_guest_stands_still(
    site: Site, volumes: list[str], qemu: Qemu, agent: Agent, instance: str
) -> None:
    seen: list[tuple[object, int]] = []

    def watched(player: Qemu | Agent) -> None:
        def answer(order: Order) -> object:
            seen.append((order["execute"], len(snapshots(site))))
            return player.behave(order)

        player.answer = answer

    watched(qemu)
    watched(agent)
    done = snf_store(site, "snapshot", "--no-commit", "--freeze", instance, "golden")
    assert done.returncode == 0, done.stderr
    # Nothing is published before the guest goes on: that writes records and waits for the disk.
    acts = {"guest-fsfreeze-freeze": 0, "stop": 0, "cont": 2, "guest-fsfreeze-thaw": 2}
    assert dict(one for one in seen if one[0] in acts).keys() == acts.keys()
    said = done.stdout.decode()
    assert "stood still for " in said
    assert "golden-disk1 is an image now" in said
    assert said.count("with its file systems frozen") == 2
    assert (qemu.status, agent.frozen, snapshots(site)) == ("running", 0, ["golden", "golden-disk1"])


@pytest.mark.parametrize("killed", ["command", "keeper"])
def test_kill_9_leaves_the_guest_running_and_thawed(
    site: Site, volumes: list[str], qemu: Qemu, agent: Agent, instance: str, killed: str
) -> None:
    stopping, answer = threading.Event(), threading.Event()

    def slow(order: Order) -> object:
        answered = qemu.behave(order)
        if order["execute"] == "stop":
            stopping.set()
            assert answer.wait(30)
        return answered

    qemu.answer = slow
    env = {"SNF_STORE_CONFIG": str(site.config())}
    words = [str(COMMAND), "snapshot", "--freeze", instance, "golden"]
    with subprocess.Popen(words, env=env, start_new_session=True, stderr=subprocess.PIPE) as command:
        assert stopping.wait(30)
        assert (qemu.status, agent.frozen) == ("paused", 3)
        if killed == "command":
            os.killpg(command.pid, signal.SIGKILL)
        else:
            os.kill(keeper_of(site, instance), signal.SIGKILL)
        answer.set()
        until(lambda: qemu.status == "running" and agent.frozen == 0)
        assert command.wait(60) != 0
    assert snapshots(site) == []
    until(lambda: not (site.hints / "node1" / "standstill" / instance).exists())
    done = snf_store(site, "snapshot", "--no-commit", instance, "golden")
    assert done.returncode == 0, done.stderr


def keeper_of(site: Site, instance: str) -> int:
    """The process that has the note open."""
    note = site.hints / "node1" / "standstill" / instance
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if any(Path(f"/proc/{pid}/fd/{fd}").readlink() == note for fd in os.listdir(f"/proc/{pid}/fd")):
                return int(pid)
    raise AssertionError("nobody has the note")


def test_an_instance_of_another_node_is_cut_there_alone(site: Site, volumes: list[str], instance: str) -> None:
    for name, uuid in zip(volumes, UUIDS, strict=True):
        assert site.script("close", name, VOL_UUID=uuid).returncode == 0
        assert site.script("open", name, node="node2", VOL_UUID=uuid, VOL_OPEN_EXCLUSIVE="True").returncode == 0
    for words in (["snapshot", instance, "golden"], ["snapshot", "--freeze", f"{instance}/0", "golden"]):
        done = snf_store(site, *words)
        assert done.returncode == 3
        assert b"open on node2, and this is node1; call `snf-store snapshot` on node2" in done.stderr
    assert snapshots(site) == []
    # One disk is one clone, which is a cut wherever it is made.
    assert snf_store(site, "snapshot", "--no-commit", f"{instance}/1", "one").returncode == 0
    assert snapshots(site) == ["one"]


def test_disks_that_are_open_without_a_qemu_are_not_cut_as_if_nobody_wrote(
    site: Site, volumes: list[str], instance: str
) -> None:
    done = snf_store(site, "snapshot", instance, "golden")
    assert done.returncode == 3
    assert b"no QEMU of it runs here, but node1 may write" in done.stderr
    for name, uuid in zip(volumes, UUIDS, strict=True):
        assert site.script("detach", name, VOL_UUID=uuid).returncode == 0
    done = snf_store(site, "snapshot", "--no-commit", "--freeze", instance, "golden")
    assert done.returncode == 0, done.stderr
    assert b"were not frozen: it does not run" in done.stdout
