"""Links and odd files at every path that a task writes or reads (threat A7), by the code that runs in the VM.

Outside of the image's root is a folder with one file; after each attempt it is as it was. Positive control: a writer
that opens the same path plainly changes it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from snf_image_helper.network import NetworkStack, network_stack
from snf_image_helper.rootfs import RootFs

from tests.attack.attempt import Attack, attempt
from tests.attack.corpus import links
from tests.attack.corpus.systems import SYSTEMS
from tests.attack.time_limit import time_limit
from tests.disk_images import populate
from tests.real.snf_image_host.node import real_helper

SECRET = b"outside\n"
#: A task that changes files and has none to change in any system of the corpus, with the reason.
WRITES_NOTHING = {"custom_task": "it runs the administrator's program, which does the writing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    root: Path
    work: Path
    outside: Path

    def untouched(self) -> bool:
        return (self.outside / "file").read_bytes() == SECRET and os.listdir(self.outside) == ["file"]


@contextlib.contextmanager
def place_of(system: str) -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(root=Path(folder, "root"), work=Path(folder, "work"), outside=Path(folder, "outside"))
        for made in (place.root, place.work, place.outside):
            made.mkdir()
        (place.outside / "file").write_bytes(SECRET)
        populate(place.root, SYSTEMS[system])
        yield place


def test_every_task_that_changes_files_does_so_in_some_system() -> None:
    writers = {task for done in links.found().values() for task in done.written}
    idle = {info.name for info in links.WRITERS} - writers - set(WRITES_NOTHING)
    assert not idle, f"nothing was seen of what {sorted(idle)} write: add a system to tests/attack/corpus/systems.py"


def test_every_way_to_configure_a_network_is_met_by_some_system() -> None:
    met = set()
    for system in SYSTEMS:
        with place_of(system) as place, RootFs(str(place.root)) as files:
            met.add(network_stack(files))
    assert set(NetworkStack) <= met, "add a system to tests/attack/corpus/systems.py"


@pytest.mark.parametrize("kind", [*links.LINKS, *links.ODD])
def test_no_trap_at_a_path_that_is_written_leads_out(kind: str) -> None:
    for path, system in links.written().items():
        attempted(system, path, kind)


@pytest.mark.parametrize("kind", ["absolute-folder", "dotdot", "proc-root"])
def test_no_link_in_place_of_a_folder_on_the_way_leads_out(kind: str) -> None:
    parents = {
        str(parent): system for path, system in links.written().items() for parent in Path(path).parents if parent.name
    }
    for path, system in parents.items():
        attempted(system, path, kind)


@pytest.mark.parametrize("kind", ["absolute", "fifo", "device", "circle"])
def test_no_trap_at_a_path_that_is_read_leads_out_or_holds_a_task(kind: str) -> None:
    for path, system in links.asked().items():
        if path != "/":
            attempted(system, path, kind)


def attempted(system: str, path: str, kind: str) -> None:
    with place_of(system) as place:
        if links.put_trap(place.root, path, kind, place.outside):
            with time_limit(f"{kind} at {path} of {system}"):
                done = links.run_tasks(place.root, place.work, system=system)
            assert place.untouched(), f"{kind} at {path} of {system} led out"
            assert all(len(sentence) > 20 for sentence in done.errors.values()), done.errors


@pytest.mark.parametrize("kind", ["absolute", "absolute-new", "dotdot", "proc-root"])
def test_a_plain_writer_is_led_out_at_each_of_these_paths(kind: str) -> None:
    """The positive control."""
    for path, system in links.written().items():
        with place_of(system) as place:
            if links.put_trap(place.root, path, kind, place.outside):
                (place.root / path.lstrip("/")).write_bytes(b"from the image's writer\n")
                assert not place.untouched(), f"{kind} at {path} of {system} did not lead out"


#: One of each kind, each at another path: the kinds follow each other at every path.
SAMPLE = {attack.name: attack for attack in links.corpus()[:: len(links.corpus()) // len(links.DEPLOYED) + 1]}


def test_the_sample_has_one_of_each_kind() -> None:
    assert sorted(name.split("-")[1] for name in SAMPLE) == sorted(links.DEPLOYED)


@pytest.mark.vm
@pytest.mark.parametrize("attack", SAMPLE.values(), ids=SAMPLE)
def test_a_link_where_a_task_writes_harms_nobody(attack: Attack) -> None:
    """One of each so many; `./lab torture links` deploys them all."""
    helper = real_helper()
    assert helper is not None, "there is no image of the helper VM"
    assert attempt(attack, helper=helper).faults == ()
