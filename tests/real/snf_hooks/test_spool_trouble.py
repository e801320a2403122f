"""A spool that takes nothing: one line of syslog, no event, and Ganeti goes on.

Each hook runs in a mount namespace of its own, with a /dev whose `log` is a socket of the test. Where something can be
written it is in memory, and what is left is looked at when nobody holds the pipe any more that the hook was given.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hook_environments import environment, instance

ENTRY = Path(__file__).resolve().parents[3] / "hooks" / "50-synnefo-light"
STARTED = environment("instance-start", "post", instance(INSTANCE_STATUS="down"), instance())

#: $1 the folder, $2 what is done to the spool, and then the hook.
APART = """
set -e
mkdir "$1/dev" "$1/spool" "$1/memory"
mount -t tmpfs none "$1/memory"
touch "$1/dev/null"
mount --bind /dev/null "$1/dev/null"
ln -s "$1/log" "$1/dev/log"
mount --rbind "$1/dev" /dev
eval "$2"
shift 2
"$@"
"""
IN_MEMORY = 'mount -t tmpfs none "$1/spool"'
TROUBLES = {
    "read-only": 'mount -t tmpfs -o ro none "$1/spool"',
    "without space": 'mount -t tmpfs -o size=4k none "$1/spool"; yes | head -c 4096 >"$1/spool/x"',
    "without inodes": 'mount -t tmpfs -o nr_inodes=1 none "$1/spool"',
    "absent": 'rmdir "$1/spool"',
    "a file": 'rmdir "$1/spool"; touch "$1/spool"',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    stderr: str
    syslog: list[str]
    spool: list[str]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for the address of a socket."""
    with tempfile.TemporaryDirectory(prefix="hk-", dir="/tmp") as name:
        yield Path(name)


def run(folder: Path, trouble: str) -> Outcome:
    """A hook's run; what is in the spool afterwards is listed inside of the namespace."""
    if os.geteuid() != 0:
        pytest.skip("only root makes mount namespaces")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(folder / "log"))
        hook = ["sh", "-c", '{ "$@" || echo FAILED; } 9>&1 | cat; ls -A "$2/" 2>/dev/null || true', "sh"]
        words: list[str | Path] = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            APART,
            "sh",
            folder,
            trouble,
            *hook,
            ENTRY,
            folder / "spool",
            folder / "memory",
        ]
        path = {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}
        done = subprocess.run(words, env={**STARTED, **path}, capture_output=True, timeout=30, check=True)
        log.setblocking(False)
        lines = []
        while True:
            try:
                lines.append(log.recv(8192).decode())
            except BlockingIOError:
                break
    return Outcome(stderr=done.stderr.decode(), syslog=lines, spool=done.stdout.decode().split())


def test_without_trouble_there_is_an_event_and_no_line(folder: Path) -> None:
    outcome = run(folder, IN_MEMORY)
    assert (outcome.stderr, outcome.syslog, len(outcome.spool)) == ("", [], 1)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_spool_that_takes_nothing_is_one_line_of_syslog(folder: Path, trouble: str) -> None:
    outcome = run(folder, TROUBLES[trouble])
    assert len(outcome.syslog) == 1 and "snf-hooks[" in outcome.syslog[0], outcome
    assert "hook instance-start post: no event was left: " in outcome.syslog[0]
    assert outcome.stderr.count("\n") == 1 and outcome.spool in ([], ["x"])


def test_nics_that_cannot_be_remembered_are_one_line_and_the_event_is_there(folder: Path) -> None:
    outcome = run(folder, IN_MEMORY + '; mount -t tmpfs -o ro none "$1/memory"')
    assert len(outcome.syslog) == 1 and "will not say what was before" in outcome.syslog[0] and len(outcome.spool) == 1
