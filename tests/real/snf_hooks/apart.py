"""A hook in a mount namespace of its own, with a /dev whose `log` is a socket of the test.

Where something can be written it is in memory, and what is left is looked at when nobody holds the pipe any more that
the hook was given.
"""

from __future__ import annotations

import os
import socket
import subprocess
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    stderr: str
    syslog: list[str]
    spool: list[str]


def run(folder: Path, trouble: str, entry: Path = ENTRY) -> Outcome:
    """A hook's run once `trouble`, a script of the shell, was done.

    What is in the spool afterwards is listed inside of the namespace.
    """
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
            entry,
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
