"""Promise 1: the host never reads guest-controlled bytes (threat A8).

A whole deployment runs under strace(1), and everything that it does is held against a list (trace.py). Positive
control: naive deployments (blkid, fdisk, a read, a mount) of such a disk are caught by the same check, in
test_controls.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attack.attempt import Attack, attempt
from tests.attack.trace import parse
from tests.disk_images import make_disk, read_back
from tests.real.snf_image_host.node import real_helper


def inside(disk: Path, instance: str) -> list[str]:
    found = read_back(disk, "/etc/hostname")
    return [] if found == f"{instance}\n".encode() else [f"the host name in the image is {found!r}"]


@pytest.mark.vm
def test_a_deployment_only_does_what_is_on_the_list() -> None:
    helper = real_helper()
    assert helper is not None, "there is no image of the helper VM"
    attack = Attack(name="good", make=lambda path: void(make_disk(path)), must="succeed", inspect=inside, disk_mib=80)
    verdict = attempt(attack, helper=helper)
    assert verdict.faults == ()


def void(_: object) -> None:
    pass


def test_a_call_that_was_interrupted_is_read_as_one() -> None:
    lines = [
        '12 openat(AT_FDCWD</>, "/etc/shadow", O_RDONLY <unfinished ...>\n',
        "13 read(3</dev/null>, ) = 0\n",
        "12 <... openat resumed>) = 3</etc/shadow>\n",
    ]
    assert [(c.pid, c.name) for c in parse(lines)] == [("13", "read"), ("12", "openat")]
    assert list(parse(lines))[1].rest.endswith("O_RDONLY) = 3</etc/shadow>")
