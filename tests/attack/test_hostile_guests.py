"""Guests with endless counts, odd names, encodings and hostile configuration (threats A7, A8, A11): first by the code
that runs in the VM, on a folder and within seconds; then some of them deployed. `./lab torture trees` deploys them all.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.attack.attempt import Attack, attempt
from tests.attack.corpus import links, trees
from tests.attack.time_limit import time_limit
from tests.disk_images import DEBIAN, populate
from tests.real.snf_image_host.node import real_helper

SAMPLE = {
    f"tree-{name}": attack
    for attack in trees.corpus()
    for name in ("users-without-end", "fstab-evil", "os-release-evil", "names-of-every-byte", "cloud-yaml-bomb")
    if attack.name == f"tree-{name}"
}


@pytest.mark.parametrize("name", trees.GUESTS)
@pytest.mark.parametrize("cloud_init", [False, True], ids=["plain", "cloud-init"])
def test_tasks_change_such_a_guest_or_say_why_not(name: str, *, cloud_init: bool) -> None:
    guest = trees.GUESTS[name]
    whole = {path: entry for path, entry in {**DEBIAN, **guest.tree}.items() if entry is not None}
    with tempfile.TemporaryDirectory() as folder:
        root, work = Path(folder, "root"), Path(folder, "work")
        root.mkdir()
        work.mkdir()
        populate(root, whole)
        with time_limit(name):
            done = links.run_tasks(root, work, system="cloud-init" if cloud_init else "ifupdown")
    assert all(20 < len(sentence) < 1000 for sentence in done.errors.values()), done.errors
    if guest.succeeds and not cloud_init:
        assert done.errors == {}
    assert done.written, "no task changed anything"


@pytest.mark.vm
@pytest.mark.parametrize("attack", SAMPLE.values(), ids=SAMPLE)
def test_a_hostile_guest_harms_nobody_but_itself(attack: Attack) -> None:
    helper = real_helper()
    assert helper is not None, "there is no image of the helper VM"
    assert attempt(attack, helper=helper).faults == ()
