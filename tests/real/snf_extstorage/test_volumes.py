"""The engine `directory` on a real XFS and real loop devices, looked at with dd, losetup and blockdev."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from snf_extstorage.directory.holding import processes_with
from snf_extstorage.directory.sharing import require_sharing
from snf_extstorage.volume import (
    Exists,
    FromSnapshot,
    FromVolume,
    InUse,
    NoSpace,
    NotFound,
    SizeRefused,
    SnapshotName,
)

from synnefo_light.errors import EnvironmentFault, PeerError
from synnefo_light.ganeti import VolumeName
from synnefo_light.units import MIB, Bytes
from tests.real.snf_extstorage.places import Site, own_names, read, write

V, W = own_names(2)
UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
SIZE = Bytes(32 * MIB)
A, B, C = (letter.encode() * 4096 for letter in "ABC")


def size_of(device: str) -> int:
    return int(subprocess.run(["blockdev", "--getsize64", device], check=True, capture_output=True).stdout)


def loops_of(site: Site) -> list[str]:
    words = ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE,DIO"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if str(site.place.root) in line]


@contextlib.contextmanager
def held_by(words: list[str | Path]) -> Iterator[int]:
    """A process that has it open meanwhile; its pid."""
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def opener(path: str) -> list[str | Path]:
    return [sys.executable, "-c", "import os, sys; os.open(sys.argv[1], os.O_RDWR); sys.stdin.read()", path]


def test_a_new_volume_is_zeros_of_its_size_through_direct_io(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=UUID, size=SIZE)
    device = node.attach(V).device
    assert device is not None
    assert device != "/dev/loop0"
    assert size_of(device) == SIZE
    assert read(device, 64 * 1024) == bytes(64 * 1024)
    (line,) = loops_of(site)
    assert line.split()[-1] == "1"
    assert node.attach(V).device == device
    assert len(loops_of(site)) == 1


def test_create_again_is_the_same_volume_until_somebody_opened_it(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=UUID, size=SIZE)
    node.create(V, uuid=UUID, size=SIZE)
    for uuid, size in ((UUID, 2 * SIZE), (UUID.replace("e", "f"), SIZE)):
        with pytest.raises(Exists, match="another one"):
            node.create(V, uuid=uuid, size=Bytes(size))
    node.open(V, exclusive=True)
    with pytest.raises(Exists, match="has been in use"):
        node.create(V, uuid=UUID, size=SIZE)


def test_a_device_refuses_writes_until_its_node_opens_the_volume_and_after_it_closes(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=UUID, size=SIZE)
    device = str(node.attach(V).device)
    assert not write(device, A)
    node.open(V, exclusive=True)
    assert write(device, A)
    node.attach(V)
    assert write(device, A)
    node.close(V)
    assert not write(device, B)
    assert read(device) == A


def is_shut(device: str) -> bool:
    return subprocess.run(["blockdev", "--getro", device], check=True, capture_output=True).stdout == b"1\n"


def test_attach_shuts_a_device_that_it_finds_and_that_its_node_may_not_write(site: Site) -> None:
    """As one is found whose node came back after it was fenced, or that somebody opened by hand."""
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    device = str(node.attach(V).device)
    subprocess.run(["blockdev", "--setrw", device], check=True)
    assert write(device, A)
    assert node.attach(V).device == device
    assert not write(device, B)
    node.open(V, exclusive=True)
    node.attach(V)
    assert write(device, B)


def test_two_attaches_at_the_same_time_get_the_same_device(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    found: list[str | None] = []
    second = threading.Thread(target=lambda: found.append(node.attach(V).device))

    def other(step: str) -> None:
        if step == "attach device":
            second.start()
            second.join(0.3)  # it comes to its end here, unless it waits for us

    found.append(site.node(trace=other).attach(V).device)
    second.join(10)
    assert found[0] == found[1]
    (line,) = loops_of(site)
    assert line.split()[0] == found[0]


def test_an_attach_while_another_closes_leaves_no_device_that_may_be_written(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    device = str(node.attach(V).device)
    node.open(V, exclusive=True)
    attaching = threading.Thread(target=lambda: node.attach(V))

    def other(step: str) -> None:
        if step == "close record":  # the device is shut, the record says that it is ours still
            attaching.start()
            attaching.join(0.3)

    site.node(trace=other).close(V)
    attaching.join(10)
    assert not write(device, A)


def test_clearing_what_is_stale_leaves_the_device_of_the_file_that_is_there(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    device = node.attach(V).device
    node._access._clear_stale(V)
    assert [line.split()[0] for line in loops_of(site)] == [device]
    site.place.discard("volumes", V)
    node.detach(V)
    assert loops_of(site) == []


@pytest.mark.parametrize("then", ["detach", "attach"])
def test_a_number_that_was_taken_from_us_by_hand_can_be_written_again(site: Site, then: str) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    device = str(node.attach(V).device)
    subprocess.run(["losetup", "--detach", device], check=True)
    assert is_shut(device)  # this is what the kernel does
    if then == "detach":
        node.detach(V)
        assert not is_shut(device)
    else:
        again = str(node.attach(V).device)
        assert is_shut(device) == (again == device)
        node.open(V, exclusive=True)
        assert write(again, A)


def test_a_clone_has_the_bytes_and_neither_changes_the_other(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    device = str(node.attach(V).device)
    node.open(V, exclusive=True)
    assert write(device, A)
    node.snapshot({V: SnapshotName("s1")})
    assert write(device, B)
    node.clone(FromSnapshot(snapshot=SnapshotName("s1")), W, uuid=None, size=Bytes(2 * SIZE))
    clone = str(node.attach(W).device)
    assert (size_of(clone), read(clone), read(device)) == (2 * SIZE, A, B)
    node.open(W, exclusive=True)
    assert write(clone, C)
    assert read(device) == B
    node.detach(V)
    node.remove(V)
    node.drop_snapshot(SnapshotName("s1"))
    assert read(clone) == C
    assert list(node.volumes()) == [W]


def test_a_clone_takes_no_space_for_data(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=Bytes(256 * MIB))
    with open(site.place.disk("volumes", V), "r+b") as file:
        file.write(os.urandom(128 * MIB))
        os.fsync(file.fileno())
    before = os.statvfs(site.place.root).f_bfree
    for n in range(10):
        node.clone(FromVolume(volume=V), VolumeName(f"c{n}"), uuid=None, size=Bytes(256 * MIB))
    used = (before - os.statvfs(site.place.root).f_bfree) * os.statvfs(site.place.root).f_frsize
    assert used < 4 * MIB


def test_one_cut_over_two_disks_or_none(site: Site) -> None:
    node = site.node()
    for name in (V, W):
        node.create(name, uuid=None, size=SIZE)
    node.snapshot({V: SnapshotName("first-0")})
    with pytest.raises(Exists):
        node.snapshot({W: SnapshotName("cut-1"), V: SnapshotName("first-0")})
    with pytest.raises(NotFound):
        node.snapshot({V: SnapshotName("cut-0"), VolumeName("none"): SnapshotName("cut-1")})
    assert list(node.snapshots()) == ["first-0"]
    node.snapshot({V: SnapshotName("cut-0"), W: SnapshotName("cut-1")})
    assert list(node.snapshots()) == ["cut-0", "cut-1", "first-0"]


def test_who_writes_stands_still_for_the_clones_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    def telling(name: str) -> Callable[[int], None]:
        real: Callable[[int], None] = getattr(os, name)

        def told(fd: int) -> None:
            happened.append("sync")
            real(fd)

        return told

    @contextlib.contextmanager
    def still() -> Iterator[None]:
        happened.append("stop")
        yield
        happened.append("go on")

    node = site.node(trace=happened.append)
    for name in (V, W):
        node.create(name, uuid=None, size=SIZE)
    happened.clear()
    for word in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, word, telling(word))
    node.snapshot({V: SnapshotName("cut-0"), W: SnapshotName("cut-1")}, still=still())
    stop, on = happened.index("stop"), happened.index("go on")
    assert happened[stop : on + 1] == ["stop", "snapshot disk", "snapshot disk", "snapshot cut", "go on"]
    assert "sync" in happened[:stop]
    assert "sync" in happened[on:]
    assert happened[-1] == "snapshot done"


def test_a_cut_that_was_no_cut_leaves_nothing(site: Site) -> None:
    @contextlib.contextmanager
    def too_long() -> Iterator[None]:
        yield
        raise PeerError("it went on before the end")

    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    with pytest.raises(PeerError):
        node.snapshot({V: SnapshotName("cut-0")}, still=too_long())
    assert list(node.snapshots()) == []


def test_grow_reaches_the_device_and_what_is_new_is_zeros(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    device = str(node.attach(V).device)
    node.open(V, exclusive=True)
    node.grow(V, Bytes(2 * SIZE))
    node.grow(V, Bytes(2 * SIZE))
    assert size_of(device) == 2 * SIZE
    assert write(device, A, block=2 * SIZE // 4096 - 1)
    assert node.facts(V).size == 2 * SIZE
    with pytest.raises(SizeRefused, match="only grow"):
        node.grow(V, SIZE)


def test_attach_of_a_device_from_before_a_grow_elsewhere_has_the_new_size(site: Site) -> None:
    node, elsewhere = site.node("node1"), site.node("node2")
    node.create(V, uuid=UUID, size=SIZE)
    device = node.attach(V).device
    assert device is not None
    elsewhere.grow(V, Bytes(2 * SIZE))
    assert size_of(device) == SIZE
    assert node.attach(V).device == device
    assert size_of(device) == 2 * SIZE
    node.detach(V)


def test_discard_and_zero_give_the_space_back(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    device = str(node.attach(V).device)
    node.open(V, exclusive=True)
    assert write(device, os.urandom(16 * MIB))
    before = node.facts(V).stored
    subprocess.run(["blkdiscard", "--offset", "0", "--length", str(8 * MIB), device], check=True)
    subprocess.run(["blkdiscard", "--zeroout", "--offset", str(8 * MIB), "--length", str(8 * MIB), device], check=True)
    after = node.facts(V).stored
    assert before is not None
    assert after is not None
    assert before >= 16 * MIB
    assert after <= 8 * MIB
    assert read(device, 16 * MIB) == bytes(16 * MIB)


@pytest.mark.parametrize("through", ["device", "file"])
def test_detach_and_remove_refuse_while_a_process_has_it(site: Site, through: str) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    device = str(node.attach(V).device)
    node.open(V, exclusive=True)
    path = site.place.disk("volumes", V)
    words = opener(device)
    if through == "file":  # QEMU locks the files that it opens, which Ganeti's userspace access has it do
        words = ["qemu-io", "-f", "raw", "-c", "sleep 60000", path]
    with held_by(words) as pid:
        wait_until(lambda: bool(processes_with(os.stat(device), os.stat(path))))
        for act in (node.detach, node.remove):
            with pytest.raises(InUse, match=rf"\(pid {pid}\)"):
                act(V)
        assert node.facts(V).holders == ("node1",)
    node.detach(V)
    assert loops_of(site) == []
    assert node.facts(V).holders == ()
    node.remove(V)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_detach_and_remove_and_close_of_what_is_not_there_succeed(site: Site) -> None:
    node = site.node()
    for act in (node.detach, node.remove, node.close):
        act(V)
        act(V)
    with pytest.raises(NotFound):
        node.attach(V)
    with pytest.raises(NotFound):
        node.open(V, exclusive=True)


def test_two_nodes_of_one_kernel_have_devices_of_their_own(site: Site) -> None:
    one, two = site.node("node1"), site.node("node2")
    one.create(V, uuid=None, size=SIZE)
    first, second = str(one.attach(V).device), str(two.attach(V).device)
    assert first != second
    one.detach(V)
    assert two.attach(V).device == second
    assert len(loops_of(site)) == 1


def test_a_live_migration_hands_the_volume_over_and_one_writer_is_left(site: Site) -> None:
    one, two = site.node("node1"), site.node("node2")
    one.create(V, uuid=None, size=SIZE)
    source = str(one.attach(V).device)
    one.open(V, exclusive=True)
    assert write(source, A)
    target = str(two.attach(V).device)
    two.close(V)
    assert not write(target, C)
    with pytest.raises(InUse, match="node1 has it for itself"):
        two.open(V, exclusive=False)
    one.open(V, exclusive=False)
    two.open(V, exclusive=False)
    assert read(target) == A
    assert write(target, B)
    one.close(V)
    assert not write(source, C)
    two.open(V, exclusive=True)
    one.detach(V)
    assert two.facts(V).holders == ("node2",)
    assert two.facts(V).generation == 0
    assert read(target) == B
    with pytest.raises(InUse, match="node2 has it open"):
        one.remove(V)


def test_a_dead_nodes_late_writes_reach_nobody(site: Site) -> None:
    dead, next_node = site.node("node1"), site.node("node2")
    dead.create(V, uuid=None, size=SIZE)
    old = str(dead.attach(V).device)
    dead.open(V, exclusive=True)
    assert write(old, A)
    new = str(next_node.attach(V).device)
    next_node.open(V, exclusive=True)
    assert next_node.attach(V).device == new
    assert write(old, C)  # it is not as dead as it was thought to be
    assert read(new) == A
    assert write(new, B)
    assert read(old) == C
    dead.attach(V)
    dead.detach(V)
    assert next_node.facts(V).holders == ("node2",)
    assert [line for line in loops_of(site) if "node1" in line or old in line.split()] == []
    assert read(new) == B


def test_a_source_that_was_cut_off_at_a_migration_is_fenced_when_the_target_starts_again(site: Site) -> None:
    """`gnt-instance migrate --cleanup` opens the target, where the guest runs, and cannot close the source."""
    source, target = site.node("node1"), site.node("node2")
    source.create(V, uuid=None, size=SIZE)
    old = str(source.attach(V).device)
    source.open(V, exclusive=True)
    new = str(target.attach(V).device)
    source.open(V, exclusive=False)
    target.open(V, exclusive=False)
    with held_by(opener(new)):
        wait_until(lambda: bool(processes_with(os.stat(new))))
        target.open(V, exclusive=True)
        assert write(new, A)
    target.detach(V)
    new = str(target.attach(V).device)
    target.open(V, exclusive=True)
    assert write(old, C)  # it is alive
    assert read(new) == A
    assert target.facts(V).holders == ("node2",)
    generation = target.facts(V).generation
    target.open(V, exclusive=True)  # paid: Ganeti opens twice
    assert target.facts(V).generation == generation


def test_without_the_fence_late_writes_would_be_seen(site: Site) -> None:
    """The control of the test above: the same writes through the same devices, without an open in between."""
    one, two = site.node("node1"), site.node("node2")
    one.create(V, uuid=None, size=SIZE)
    old, new = str(one.attach(V).device), str(two.attach(V).device)
    one.open(V, exclusive=True)
    assert write(old, C)
    assert read(new) == C


def test_adopt_gives_a_volume_another_name(site: Site) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    node.open(V, exclusive=True)
    assert write(str(node.attach(V).device), A)
    with pytest.raises(SizeRefused):
        node.adopt(V, W, uuid=UUID, size=Bytes(2 * SIZE))
    node.adopt(V, W, uuid=UUID, size=SIZE)
    node.adopt(V, W, uuid=UUID, size=SIZE)
    assert list(node.volumes()) == [W]
    assert read(str(node.attach(W).device)) == A
    with pytest.raises(NotFound):
        node.adopt(V, VolumeName("other"), uuid=UUID, size=SIZE)


def test_nothing_is_made_below_the_reserve(site: Site, tmp_path: Path) -> None:
    node = site.node()
    node.create(V, uuid=None, size=SIZE)
    full = type(site.place)(site.place.root, reserve_percent=100)
    node = Site(place=full, hints=site.hints).node()
    with pytest.raises(NoSpace, match="are reserved"):
        node.create(W, uuid=None, size=SIZE)
    with pytest.raises(NoSpace, match="are reserved"):
        node.clone(FromVolume(volume=V), W, uuid=None, size=SIZE)
    with pytest.raises(NoSpace, match="are reserved"):
        node.snapshot({V: SnapshotName("s")})
    assert (list(node.volumes()), list(node.snapshots())) == ([V], [])
    node.remove(V)


def test_a_file_system_that_cannot_share_is_refused_in_words(tmp_path: Path) -> None:
    folder = Path("/dev/shm")
    with pytest.raises(EnvironmentFault, match="use XFS"):
        require_sharing(folder)
    assert [e for e in os.listdir(folder) if e.startswith(".tmp-sharing")] == []


def test_a_file_system_that_can_share_is_not(site: Site) -> None:
    require_sharing(site.place.root)
    assert [e for e in os.listdir(site.place.root) if e.startswith(".tmp-sharing")] == []
