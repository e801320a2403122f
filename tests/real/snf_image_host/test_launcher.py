"""A deployment with helper VMs that behave well and badly: the fake QEMU runs where the real one would."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import time
from pathlib import Path

import pytest
from snf_image_host.journal import Finished, TaskDone, Warned
from snf_image_host.vm import GATE

from synnefo_light.tasks import Phase
from tests.real.snf_image_host.node import Fake
from tests.task_list import ORDER

MIB = 1 << 20
#: The tasks of an image that the host copies itself, and those of them that are left without the mounted ones.
DUE = [task.name for task in ORDER if task.phase is not Phase.SOURCE]
UNMOUNTED = [task.name for task in ORDER if task.name in DUE and "mounted" not in task.groups]


def assert_wiped(disk: Path) -> None:
    with open(disk, "rb") as file:
        assert file.read(MIB) == bytes(MIB)
        file.seek(-MIB, os.SEEK_END)
        assert file.read() == bytes(MIB)


def test_a_good_helper_is_success(node: Fake) -> None:
    node.image()
    disk = node.disk()
    done = node.create(disk)
    assert done.returncode == 0, done.output
    with open(disk, "rb") as file:
        file.seek(2 * MIB)
        assert file.read(26) == b"written by the fake helper"
    records = node.records()
    assert [r.task for r in records if isinstance(r, TaskDone)] == DUE
    last = records[-1]
    assert isinstance(last, Finished) and last.accel == "tcg" and last.helper_ms > 0
    assert last.host_peak_rss <= 64 * MIB
    assert node.events()[-1].type == "image-deployed"
    assert node.alive() == []


@pytest.mark.parametrize(
    ("behaviour", "code", "sentence"),
    [
        ("hang", 4, "the helper VM did not end within 2 s and was killed"),
        ("hang-in:hostname", 4, "the helper VM did not end within 2 s (in the task hostname) and was killed"),
        ("stays", 4, "the helper VM did not end within 2 s and was killed"),
        ("flood-console", 5, "flooded its console with more than 16 MiB"),
        ("flood-channel", 5, "sent a message of more than 8192 bytes"),
        ("flood-lines", 5, "broke its protocol"),
        ("greedy", 4, "the helper VM took more than 768 MiB of the node's memory and was killed"),
        ("garbage", 5, "broke its protocol"),
        ("success-twice", 5, "went on after its last message"),
        ("success-at-once", 5, f"finished without the tasks {', '.join(DUE[:3])}"),
        ("hello-twice", 5, "said hello twice"),
        ("wrong-nonce", 5, "does not carry the nonce"),
        ("gap", 5, "message number 2 was due"),
        ("wrong-version", 5, "is version 9.9.9, this host half is"),
        ("early-exit", 4, "QEMU exited with 1: qemu-system-x86_64: no such machine"),
        ("exit-3", 4, "QEMU exited with 3"),
        ("stops-at:mount", 4, "the helper VM ended in the task mount, without saying that it had finished"),
        ("fails-at:mount", 4, "the task mount failed: the \\x1b[31mpartition\\x07 table\\x0ais odd"),
        *((f"dies-at:{task}", 4, f"in the task {task}") for task in DUE),
    ],
)
def test_a_bad_helper_fails_the_deployment_with_its_sentence(
    node: Fake, behaviour: str, code: int, sentence: str
) -> None:
    node.image()
    # What is not about the limit must not meet it on a machine that is busy.
    node.configure(tcg_limit_s=2 if "within 2 s" in sentence else 20)
    node.behave(behaviour)
    disk = node.disk()
    begun = time.monotonic()
    done = node.create(disk)
    assert time.monotonic() - begun < 30
    assert done.returncode == code, done.output
    assert sentence in done.sentence, done.output
    assert "both ends of its disk were wiped" in done.sentence
    assert done.sentence.endswith("run `gnt-instance reinstall web1`, or give up with `gnt-instance remove web1`")
    assert "Traceback" not in done.output
    assert done.output.replace("\n", "").isprintable(), "no control character reaches Ganeti's log"
    assert_wiped(disk)
    assert node.alive() == []
    last = node.events()[-1]
    assert last.type == "image-failed" and sentence in last.detail.reason  # type: ignore[union-attr]


def test_a_flood_on_stderr_is_dropped_and_does_no_harm(node: Fake) -> None:
    node.image()
    node.behave("flood-stderr")
    done = node.create(node.disk())
    assert done.returncode == 0, done.output
    assert len(done.output) < 100_000


def test_a_child_that_the_vm_leaves_is_dead_before_the_disk_is_wiped(node: Fake) -> None:
    node.image()
    node.behave("leaves-a-child")
    disk = node.disk()
    done = node.create(disk)
    assert done.returncode == 4 and "the task mount failed: odd" in done.sentence
    assert_wiped(disk)
    time.sleep(0.1)
    assert_wiped(disk)
    assert node.alive() == []


def test_a_deployment_without_tasks_starts_no_helper(node: Fake) -> None:
    node.image()
    node.behave("early-exit")
    done = node.create(node.disk(), img_properties='{"EXCLUDE_ALL_TASKS": "yes"}')
    assert done.returncode == 0, done.output
    last = node.records()[-1]
    assert isinstance(last, Finished) and (last.accel, last.helper_ms) == ("none", 0)


def test_tasks_that_are_left_out_are_not_asked_for(node: Fake) -> None:
    node.image()
    done = node.create(node.disk(), img_properties='{"EXCLUDE_MOUNTED_TASKS": "yes"}')
    assert done.returncode == 0, done.output
    assert [r.task for r in node.records() if isinstance(r, TaskDone)] == UNMOUNTED
    assert not [r for r in node.records() if isinstance(r, Warned)]


def test_the_helper_runs_as_a_stranger_in_namespaces_of_its_own(node: Fake) -> None:
    node.image()
    node.behave("report")
    disk = node.disk()
    done = node.create(disk)
    assert done.returncode == 0, done.output
    said = "".join(line.removeprefix("console: ") for line in node.log().splitlines() if line.startswith("console: "))
    reported = json.loads(said)
    status = reported["status"]
    assert status["Uid"].split() == ["65534"] * 4 and status["Gid"].split() == ["65534"] * 4
    assert status.get("Groups", "").strip() == ""
    assert status["NoNewPrivs"] == "1"
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    for name, inode in reported["namespaces"].items():
        assert inode != os.stat(f"/proc/self/ns/{name}").st_ino, name
    limits = reported["limits"]
    assert limits["CORE"] == [0, 0]
    assert limits["AS"][1] == (256 + 3072) * MIB
    assert limits["CPU"][1] == 40
    assert limits["FSIZE"][1] == disk.stat().st_size
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY, "the limits are the helper's alone"
    assert set(reported["environ"]) == {"PATH", "LC_ALL", "PWD", "MALLOC_ARENA_MAX"}
    assert not [link for link in reported["links"] if link.endswith((".jsonl", ".log", ".lock"))], reported["links"]


@pytest.mark.parametrize("answers", [True, False])
def test_the_gate_opens_only_for_an_answer(tmp_path: Path, *, answers: bool) -> None:
    """What stands before QEMU: when we die before it has begun, the socket ends and QEMU never starts."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        begun = tmp_path / "begun"
        process = subprocess.Popen(["sh", "-c", GATE, "gate", "touch", str(begun)], stdin=theirs.fileno())
        theirs.close()
        assert ours.recv(100) == b"ready\n"
        assert not begun.exists()
        if answers:
            ours.send(b"go\n")
        else:
            ours.close()
        assert (process.wait(timeout=10) == 0) is answers
    assert begun.exists() is answers
