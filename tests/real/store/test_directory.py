"""What only a store in a directory has: other people's files, the trash, processes side by side, sharing."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synnefo_light.store import blocks, fsck, gc, names
from synnefo_light.store.backend import Instant, Kind
from synnefo_light.store.directory import Directory, make_directory
from synnefo_light.store.errors import Absent, FormatRefused, StoreFault
from synnefo_light.store.identity import BLOCK_SIZE, block_id
from synnefo_light.store.sharing import SharesExtents, SharingBatch
from synnefo_light.store.store import Store, open_store
from tests.real.store import operations
from tests.real.store.contents import block, image
from tests.real.store.operations import Unsynced

TREE = Path(__file__).resolve().parents[3]
KEY = hashlib.sha256(b"key").hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_directory(tmp_path / "store", operations.FORM, files=Unsynced())
    return tmp_path / "store"


@pytest.fixture
def here(path: Path) -> Store:
    return open_store(Directory(path, files=Unsynced()))


# --- whose folder it is


def test_no_store_is_made_where_somebody_elses_files_are(tmp_path: Path) -> None:
    (tmp_path / "thesis.odt").write_text("years of work")
    with pytest.raises(FormatRefused, match=r"thesis\.odt"):
        make_directory(tmp_path, operations.FORM)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.odt"]


def test_a_store_is_not_made_twice(path: Path) -> None:
    before = (path / "FORMAT").read_bytes()
    with pytest.raises(FormatRefused, match="is a store already"):
        make_directory(path, operations.FORM)
    assert (path / "FORMAT").read_bytes() == before


def test_a_folder_without_format_is_no_store(path: Path) -> None:
    (path / "FORMAT").unlink()
    with pytest.raises(FormatRefused, match="it has no FORMAT"):
        open_store(Directory(path))


def test_a_store_of_a_newer_format_is_not_opened(path: Path) -> None:
    text = (path / "FORMAT").read_text().rpartition("sha256=")[0].replace("snf-store=1", "snf-store=2")
    (path / "FORMAT").write_text(f"{text}sha256={hashlib.sha256(text.encode()).hexdigest()}\n")
    with pytest.raises(FormatRefused, match="version 2"):
        open_store(Directory(path))


@pytest.mark.parametrize(
    "place",
    [
        *("notes.txt", "blocks/notes.txt", "blocks/ab/notes.txt", f"blocks/00/{KEY}", "names/00/debian", "pages/zz/x"),
        *("tmp/notes", "trash/notes", "trash/5/notes", "trash/5/blocks.x", f"trash/5/names.{KEY}", "quarantine/notes"),
    ],
)
def test_somebody_elses_file_is_named_left_alone_and_never_used(here: Store, path: Path, place: str) -> None:
    image(here, "a", {0: 1})
    (path / place).parent.mkdir(exist_ok=True)
    (path / place).write_bytes(b"mine")
    report = fsck.check(here)
    assert report.exit_code == 2
    assert any(problem.place.startswith(str(path / place.rpartition("/x")[0])) for problem in report.problems)
    gc.collect(here, now=Instant(here.backend.now() + 1e6))
    assert (path / place).read_bytes() == b"mine"
    assert [named.name for named in names.listing(here)] == ["a"]
    assert KEY not in here.backend.keys(Kind.BLOCK)


def test_a_link_in_place_of_an_object_is_not_followed(here: Store, path: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"root's own")
    target = path / "blocks" / KEY[:2] / KEY
    target.parent.mkdir(exist_ok=True)
    target.symlink_to(secret)
    with pytest.raises((Absent, StoreFault)):
        here.backend.read(Kind.BLOCK, KEY)
    assert any(str(target) == problem.place for problem in fsck.check(here).problems)


def test_a_folder_that_is_gone_is_damage_and_not_emptiness(here: Store, path: Path) -> None:
    image(here, "a", {0: 1})
    (path / "names").rename(path.parent / "elsewhere")
    assert fsck.check(here).exit_code == 4
    with pytest.raises(StoreFault, match="nothing was removed"):
        gc.collect(here, now=Instant(here.backend.now() + 1e6))
    assert len(list(here.backend.keys(Kind.BLOCK))) == 1


def test_leftovers_of_dead_writers_are_told_and_mended_when_they_are_old(here: Store, path: Path) -> None:
    leftover = path / "tmp" / ("0123" * 8)
    leftover.write_bytes(b"half")
    assert fsck.check(here).exit_code == 0
    os.utime(leftover, (0, 0))
    assert fsck.check(here).exit_code == 2
    assert fsck.check(here, mend=True).exit_code == 1
    assert fsck.check(here).exit_code == 0
    assert not leftover.exists()


def test_what_is_written_is_for_root_alone(here: Store, path: Path) -> None:
    image(here, "a", {0: 1})
    wrong = [p for p in path.rglob("*") if p.stat().st_mode & 0o077 and p.parent.name != "locks"]
    assert wrong == []
    assert path.stat().st_mode & 0o077 == 0


# --- the trash


def test_what_is_in_the_trash_is_brought_back_by_whoever_needs_it(here: Store, path: Path) -> None:
    stored = blocks.put(here, block(1))
    assert stored is not None
    for use in ("read", "touch", "put"):
        assert here.backend.retire(Kind.BLOCK, stored.hex(), untouched_since=Instant(here.backend.now() + 10))
        assert list(here.backend.keys(Kind.BLOCK)) == []
        if use == "read":
            assert blocks.get(here, stored) == block(1)
        elif use == "touch":
            here.backend.touch(Kind.BLOCK, stored.hex())
        else:
            blocks.put(here, block(1))
        assert list(here.backend.keys(Kind.BLOCK)) == [stored.hex()]
    assert [p for p in (path / "trash").rglob("*") if p.is_file()] == []


def test_the_trash_is_emptied_a_grace_later(here: Store, path: Path) -> None:
    stored = blocks.put(here, block(1))
    assert stored is not None
    now = here.backend.now()
    assert here.backend.retire(Kind.BLOCK, stored.hex(), untouched_since=Instant(now + 10))
    assert here.backend.sweep_leftovers(untouched_since=Instant(now - 1)) == 0
    assert here.backend.sweep_leftovers(untouched_since=Instant(now + 3600)) == 1
    with pytest.raises(Absent):
        blocks.get(here, stored)
    assert list((path / "trash").iterdir()) == []


def test_an_object_touched_as_the_collector_took_it_comes_back_also_when_the_collector_dies(
    here: Store, path: Path
) -> None:
    """The writer's touch falls between the collector's look at the time and its renaming; then it is killed."""
    stored = blocks.put(here, block(1))
    assert stored is not None
    final = path / "blocks" / stored.hex()[:2] / stored.hex()
    cutoff = Instant(here.backend.now() - 1000)
    os.utime(final, (cutoff - 10, cutoff - 10))

    class Racing(Unsynced):
        def rename(self, old: Path, new: Path) -> None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(final)
            super().rename(old, new)

    class Killed(BaseException):
        pass

    def die(step: str) -> None:
        if step == "retire.1 in the trash":
            raise Killed

    with pytest.raises(Killed):
        Directory(path, files=Racing(), trace=die).retire(Kind.BLOCK, stored.hex(), untouched_since=cutoff)
    assert not final.exists()
    here.backend.sweep_leftovers(untouched_since=Instant(here.backend.now() + 1e6))
    assert final.exists()
    os.utime(final, (cutoff - 10, cutoff - 10))
    assert Directory(path, files=Racing()).retire(Kind.BLOCK, stored.hex(), untouched_since=cutoff) is False
    assert final.exists()


# --- side by side


def test_many_processes_replace_one_record_and_none_is_lost(path: Path) -> None:
    """Compare-and-swap over processes: each adds one to a counter until it succeeded twenty times."""
    code = (
        "import sys; from pathlib import Path\n"
        "from synnefo_light.store.directory import Directory\n"
        "from synnefo_light.store.backend import Kind; from synnefo_light.store.errors import Absent, Conflict\n"
        "d = Directory(Path(sys.argv[1])); done = 0\n"
        "while done < 20:\n"
        "    try: now = d.load(Kind.NAME, 'n'); value, version = int(now.data), now.version\n"
        "    except Absent: value, version = 0, None\n"
        "    try: d.replace(Kind.NAME, 'n', b'%d' % (value + 1), expected=version); done += 1\n"
        "    except (Conflict, Absent): pass\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=TREE) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert Directory(path).load(Kind.NAME, "n").data == b"80"


def test_many_processes_put_the_same_blocks_while_they_are_collected(path: Path) -> None:
    """Everything is garbage and old to the collector; what a writer was told to be stored is there afterwards."""
    code = (
        "import sys; from pathlib import Path\n"
        "from synnefo_light.store import blocks\n"
        "from synnefo_light.store.directory import Directory; from synnefo_light.store.store import open_store\n"
        "from tests.real.store.contents import block; from tests.real.store.operations import Unsynced\n"
        "store = open_store(Directory(Path(sys.argv[1]), files=Unsynced())); store.backend.fresh_s = 0.0\n"
        "for n in range(600):\n"
        "    found = blocks.put(store, block(n % 8 + 1))\n"
        "    assert blocks.get(store, found) == block(n % 8 + 1)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=TREE) for _ in range(2)]
    store = open_store(Directory(path, files=Unsynced()))
    taken = 0
    while any(process.poll() is None for process in running):
        cutoff = store.backend.now()
        for key in list(store.backend.keys(Kind.BLOCK)):
            taken += store.backend.retire(Kind.BLOCK, key, untouched_since=cutoff)
    assert [process.wait(60) for process in running] == [0, 0]
    assert taken > 20


# --- sharing


def test_the_directory_offers_to_share_extents(here: Store) -> None:
    assert isinstance(here.backend, SharesExtents)
    assert isinstance(here.backend.batch(), SharingBatch)


def test_an_open_block_stays_readable_when_it_is_removed(here: Store) -> None:
    stored = blocks.put(here, block(1))
    assert stored is not None
    assert isinstance(here.backend, Directory)
    fd = here.backend.open_block(stored)
    later = Instant(here.backend.now() + 1e6)
    assert here.backend.retire(Kind.BLOCK, stored.hex(), untouched_since=later)
    assert here.backend.sweep_leftovers(untouched_since=later) == 1
    assert os.pread(fd, BLOCK_SIZE, 0) == block(1).ljust(8192, b"\0")
    os.close(fd)


def test_a_range_that_changes_while_it_is_taken_gets_the_name_of_what_is_stored(path: Path, tmp_path: Path) -> None:
    """A guest writes all the time. Positive control: the bytes did change during the test."""
    volume = tmp_path / "volume"
    volume.write_bytes(bytes(BLOCK_SIZE))
    stop = multiprocessing.get_context("spawn").Event()
    writer = multiprocessing.get_context("spawn").Process(target=scribble, args=(str(volume), stop))
    writer.start()
    store = open_store(Directory(path, files=Unsynced()))
    assert isinstance(store.backend, Directory)
    seen: set[bytes] = set()
    try:
        deadline = time.monotonic() + 30
        with open(volume, "rb") as file:
            while len(seen) < 20 and time.monotonic() < deadline:
                with store.backend.batch() as batch:
                    adopted = batch.adopt(file.fileno(), 0, BLOCK_SIZE)
                if adopted is not None:
                    assert block_id(blocks.get(store, adopted)) == adopted
                    seen.add(adopted)
    finally:
        stop.set()
        writer.join(30)
    assert len(seen) >= 20


def scribble(volume: str, stop: object) -> None:
    with open(volume, "r+b", buffering=0) as file:
        n = 0
        while not stop.is_set():  # type: ignore[attr-defined]
            n += 1
            os.pwrite(file.fileno(), n.to_bytes(8, "little") * 8192, (n * 65536) % BLOCK_SIZE)
