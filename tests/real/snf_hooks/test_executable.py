"""The file that Ganeti runs, run as Ganeti does: with an environment and nothing else.

Ganeti does not wait for the child that writes the event, so the tests do: it ends when nobody holds a pipe of theirs.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from synnefo_light.changes import InstanceChange
from synnefo_light.events import Event, from_json, pending
from tests.hook_environments import NIC_B, environment, instance, nic

ENTRY = Path(__file__).resolve().parents[3] / "hooks" / "50-synnefo-light"
STARTED = environment("instance-start", "post", instance(INSTANCE_STATUS="down"), instance())
#: What must not be loaded: each costs as much as the rest of a hook together.
HEAVY = {
    "json",
    "re",
    "typing",
    "dataclasses",
    "logging",
    "pathlib",
    "datetime",
    "uuid",
    "socket",
    "inspect",
    "collections",
}


class Place:
    """A spool and a memory of a test's own, on no disk, and hooks that use them."""

    def __init__(self, folder: Path) -> None:
        self.spool, self.memory = folder / "spool", folder / "memory"
        self.spool.mkdir()
        self.memory.mkdir()

    def run(
        self, environ: Mapping[str, str] | Mapping[bytes, bytes], *before: str | Path
    ) -> subprocess.CompletedProcess[bytes]:
        """One hook, and its child until that has ended too."""
        done, child = self.call(environ, *before)
        wait_for(child)
        return done

    def call(
        self, environ: Mapping[str, str] | Mapping[bytes, bytes], *before: str | Path
    ) -> tuple[subprocess.CompletedProcess[bytes], int]:
        """What Ganeti sees of a hook, and a descriptor that ends when its child has."""
        reading, writing = os.pipe()
        words = [*before, ENTRY, self.spool, self.memory]
        try:
            done = subprocess.run(words, env=environ, capture_output=True, timeout=30, check=True, pass_fds=(writing,))
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return done, reading

    def events(self) -> list[Event]:
        return [from_json(path.read_bytes()) for path in pending(self.spool)]


def wait_for(child: int) -> None:
    try:
        assert select.select([child], [], [], 60)[0] and os.read(child, 1) == b"", "the hook's child did not end"
    finally:
        os.close(child)


@pytest.fixture
def place() -> Iterator[Place]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="snf-hooks-", dir=memory) as folder:
        yield Place(Path(folder))


def test_a_hook_leaves_one_event_and_says_nothing(place: Place) -> None:
    done = place.run(STARTED)
    (event,) = place.events()
    assert (done.stdout, done.stderr, event.type, event.node) == (b"", b"", "instance-started", os.uname().nodename)
    shown = subprocess.run(
        ["stat", "--format=%a %h", *place.spool.iterdir()], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "640 1\n"


def test_a_hook_run_twice_leaves_two_files_with_one_id(place: Place) -> None:
    place.run(STARTED)
    place.run(STARTED)
    assert len(place.events()) == 2 and len({event.id for event in place.events()}) == 1


def test_the_same_operation_called_by_another_process_has_another_id(place: Place) -> None:
    for _ in range(2):
        place.run(STARTED, "sh", "-c", '"$@"; exit $?', "sh")
    assert len({event.id for event in place.events()}) == 2


def test_a_nic_that_is_added_is_a_change_since_the_operation_before_was_seen(place: Place) -> None:
    place.run(STARTED)
    place.run(environment("instance-modify", "post", instance(INSTANCE_NIC_COUNT="2", **nic(1, NIC_B))))
    detail = place.events()[-1].detail
    assert isinstance(detail, InstanceChange) and [(c.action, c.item) for c in detail.changes] == [("added", NIC_B)]


@pytest.mark.parametrize("operation", ["instance-start", "master-ip-turnup", "master-ip-turndown"])
def test_what_is_remembered_is_forgotten_where_the_event_cannot_be_left(place: Place, operation: str) -> None:
    """Or a later change would be told as if nothing had happened meanwhile."""
    place.run(STARTED)
    assert [path.name for path in place.memory.iterdir()] == ["web1"]
    for path in place.spool.iterdir():
        path.unlink()
    place.spool.rmdir()
    done = place.run(environment(operation, "post", instance()))
    assert done.stderr.count(b"\n") == 1 and b"no event was left" in done.stderr
    assert list(place.memory.iterdir()) == []


def test_a_memory_that_is_absent_takes_no_event_with_it(place: Place) -> None:
    place.memory.rmdir()
    done = place.run(environment("master-ip-turnup", "post", {"MASTER_IP": "192.0.2.1"}))
    assert done.stderr.count(b"\n") == 1 and b"NICs of before are not forgotten" in done.stderr
    assert [event.type for event in place.events()] == ["master-ip-turned-up"]


def test_a_hook_loads_nothing_that_takes_long(place: Place) -> None:
    done = place.run(STARTED, "/usr/bin/python3", "-IS", "-X", "importtime")
    loaded = set(re.findall(rb"\|\s+([\w.]+)$", done.stderr, re.MULTILINE))
    assert b"snf_hooks.main" in loaded and not {name.encode() for name in HEAVY} & loaded


FORGED: list[dict[bytes, bytes]] = [
    {},
    {b"GANETI_HOOKS_VERSION": b"2", b"GANETI_HOOKS_PATH": b"\xff\x1b[2J", b"GANETI_HOOKS_PHASE": b"pre"},
    {os.fsencode(k): os.fsencode(v) for k, v in {**STARTED, "GANETI_INSTANCE_NAME": "../../escape"}.items()},
    {os.fsencode(k): os.fsencode(v) for k, v in STARTED.items() if "INSTANCE_NAME" not in k},
    {os.fsencode(k): os.fsencode(v) for k, v in {**STARTED, "GANETI_POST_INSTANCE_DISK_COUNT": "9" * 5000}.items()},
    {os.fsencode(k): b"\xff" * 20_000 if b"_DISK0_" in os.fsencode(k) else os.fsencode(v) for k, v in STARTED.items()},
]


@pytest.mark.parametrize("environ", FORGED, ids=range(len(FORGED)))
def test_an_environment_that_is_not_ganetis_is_one_line_and_no_event(place: Place, environ: dict[bytes, bytes]) -> None:
    done = place.run(environ)
    assert done.stderr.count(b"\n") == 1 and b"no event was left" in done.stderr and len(done.stderr) < 1000
    assert done.stderr.decode().strip().isprintable() and list(place.spool.iterdir()) == []
    assert sorted(path.name for path in place.spool.parent.iterdir()) == ["memory", "spool"]


def test_bytes_that_are_no_text_in_what_users_choose_are_told(place: Place) -> None:
    place.run({os.fsencode(k): b"a\xff" if k.endswith("_TAGS") else os.fsencode(v) for k, v in STARTED.items()})
    (event,) = place.events()
    assert isinstance(event.detail, InstanceChange) and event.detail.after is not None
    assert event.detail.after.tags == ("a\\udcff",)


def test_a_disk_that_does_not_answer_delays_ganeti_by_a_second_and_the_event_comes_when_it_does(place: Place) -> None:
    os.mkfifo(place.memory / "web1")  # who opens it waits for the other side, as for a disk
    done, child = place.call(environment("instance-modify", "post", instance()))
    assert (done.stderr, place.events()) == (b"", [])
    with open(place.memory / "web1", "wb"):
        (place.memory / "web1").unlink()  # or it would wait here once more, to write what it saw
    wait_for(child)
    assert [event.type for event in place.events()] == ["instance-modified"]
    assert (place.memory / "web1").is_file()


#: Runs the entry with each call of the kernel that a drop makes counted, in the child, which is killed at one of them.
KILLED = """
import os, sys
at, entry = int(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[2:]
seen, pid = 0, os.getpid()
def counted(name):
    call = getattr(os, name)
    def wrapped(*a, **k):
        global seen
        seen += os.getpid() != pid
        if seen == at and os.getpid() != pid:
            os.kill(os.getpid(), 9)
        return call(*a, **k)
    setattr(os, name, wrapped)
for name in ("scandir", "open", "fdopen", "fchmod", "fsync", "rename", "close", "unlink"):
    counted(name)
exec(compile(open(entry).read(), entry, "exec"), {"__file__": entry, "__name__": "__main__"})
"""


def test_killed_at_each_step_there_is_the_whole_event_or_none_and_ganeti_goes_on(place: Place) -> None:
    outcomes = []
    for at in range(1, 30):
        for path in [*place.spool.iterdir(), *place.memory.iterdir()]:
            path.unlink()
        place.run(STARTED, "/usr/bin/python3", "-IS", "-c", KILLED, str(at))
        left = place.events()  # reads each: a half one raises
        assert {p.name[:5] for p in place.spool.iterdir()} - {p.name[:5] for p in pending(place.spool)} <= {".tmp-"}
        outcomes.append(len(left))
        if left and (place.memory / "web1").exists():
            break
    assert outcomes == sorted(outcomes) and {*outcomes} == {0, 1} and len(outcomes) > 8
