"""Hives read and changed by the helper's code with the real hivex; what came of it is read by reged of chntpw."""

from __future__ import annotations

import mmap
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from snf_image_helper import hives
from snf_image_helper.image import ImageError
from snf_image_helper.rootfs import RootFs
from snf_image_helper.windows import HIVES

from tests import windows_images
from tests.registry_hives import Key, at, make_hive
from tests.windows_images import sam_hive, software_hive, system_hive

pytest.importorskip("hivex", reason="python3-hivex is not installed for this Python")
SYSTEM = HIVES / "SYSTEM"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hives, "WORK", tmp_path / "work")
    config = tmp_path / "root" / str(HIVES).lstrip("/")
    config.mkdir(parents=True)
    (config / "SYSTEM").write_bytes(system_hive())
    (config / "SOFTWARE").write_bytes(software_hive())
    (config / "SAM").write_bytes(sam_hive({"Administrator": 500, "Üser": 1001}))
    return tmp_path / "root"


def system_of(root: Path) -> Path:
    return root / str(SYSTEM).lstrip("/")


def test_what_the_hives_tell(root: Path) -> None:
    with RootFs(str(root)) as files:
        facts = hives.read_facts(files)
    assert (facts.architecture, facts.version, facts.image_state) == ("amd64", (10, 0), windows_images.GENERALIZED)
    assert (facts.remote_desktop_denied, facts.control_set, facts.system_is_merged) == (0, 1, True)
    assert facts.users == {"administrator": 500, "üser": 1001}


def test_a_log_that_is_not_merged_is_seen(root: Path) -> None:
    system_of(root).write_bytes(system_hive(sequence=(7, 6)))
    with RootFs(str(root)) as files:
        assert not hives.read_facts(files).system_is_merged


def test_one_value_is_changed_and_the_rest_stays(root: Path, tmp_path: Path) -> None:
    before = exported(system_of(root), tmp_path)
    with RootFs(str(root)) as files:
        hives.set_dword(files, SYSTEM, windows_images.TERMINAL_SERVER, "fDenyTSConnections", 1)
        once = system_of(root).read_bytes()
        hives.set_dword(files, SYSTEM, windows_images.TERMINAL_SERVER, "fDenyTSConnections", 1)
    after = exported(system_of(root), tmp_path)
    assert len(once) <= len(system_hive()) + 4096
    changed = [(b, a) for b, a in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert changed == [('"fDenyTSConnections"=dword:00000000', '"fDenyTSConnections"=dword:00000001')]
    assert not (tmp_path / "work").exists()


def exported(hive: Path, folder: Path) -> str:
    subprocess.run(
        ["reged", "-x", hive, "HKLM", "\\", folder / "out.reg"], capture_output=True, timeout=60, check=False
    )
    return (folder / "out.reg").read_text("latin-1")


def test_a_key_that_is_not_there_is_not_made(root: Path) -> None:
    with RootFs(str(root)) as files, pytest.raises(ImageError, match=r"it has no key ControlSet009\\Control"):
        hives.set_dword(files, SYSTEM, r"ControlSet009\Control", "x", 1)
    assert system_of(root).read_bytes() == system_hive()


@pytest.mark.parametrize(
    "content",
    [b"", b"regf", b"\0" * 8192, os.urandom(16384), system_hive()[:5000], system_hive()[:4096]],
    ids=["empty", "magic", "zeros", "noise", "cut", "header"],
)
def test_what_is_no_hive_is_a_sentence(root: Path, content: bytes) -> None:
    system_of(root).write_bytes(content)
    with RootFs(str(root)) as files, pytest.raises(ImageError, match="/Windows/System32/config/SYSTEM of the image"):
        hives.read_facts(files)


def test_damaged_hives_end_in_facts_or_a_sentence(root: Path) -> None:
    """Bytes changed at random, the header's checksum made right again, so that hivex reads on."""
    chance = random.Random(20261121)
    whole = system_hive()
    refused = 0
    begun = time.monotonic()
    with RootFs(str(root)) as files:
        for _ in range(300):
            damaged = bytearray(whole)
            for _ in range(chance.randint(1, 12)):
                damaged[chance.randrange(4096, len(damaged))] = chance.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))
                )
            system_of(root).write_bytes(damaged)
            try:
                hives.read_facts(files)
            except ImageError as e:
                refused += 1
                assert len(str(e)) < 600
    assert 0 < refused < 300
    assert time.monotonic() - begun < 300


def test_a_key_that_is_its_own_child_does_not_hang(root: Path) -> None:
    """The list of subkeys of the key Setup names the root."""
    hive = bytearray(make_hive(at("Setup", Key(keys={"Setup": Key()}))))
    leaf = hive.rindex(b"lf\x01\0", 0, hive.rindex(b"lf\x01\0")) if hive.count(b"lf\x01\0") > 1 else hive.index(b"lf")
    hive[leaf + 4 : leaf + 8] = hive[0x24:0x28]
    system_of(root).write_bytes(hive)
    with RootFs(str(root)) as files, pytest.raises(ImageError):
        hives.read_facts(files)


def die(fate: signal.Signals) -> dict[str, object]:
    if fate is not signal.SIGKILL:
        signal.signal(fate, signal.SIG_DFL)
    os.kill(os.getpid(), fate)
    return {}


@pytest.mark.parametrize("fate", [signal.SIGSEGV, signal.SIGBUS, signal.SIGKILL])
def test_a_reader_that_crashes_is_a_sentence(fate: signal.Signals) -> None:
    with pytest.raises(ImageError, match=f"its reader was killed by {fate.name}"):
        hives._isolated(SYSTEM, lambda: die(fate))


def test_a_reader_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hives, "WALL_S", 0.5)
    with pytest.raises(ImageError, match="its reader was killed by SIGKILL"):
        hives._isolated(SYSTEM, lambda: time.sleep(60))  # type: ignore[arg-type, return-value]


def test_a_reader_that_eats_memory_is_a_sentence() -> None:
    with pytest.raises(ImageError, match="cannot be used as a hive"):
        hives._isolated(SYSTEM, lambda: {"much": "x" * (3 << 30)})


def test_a_reader_that_says_too_much_is_a_sentence() -> None:
    with pytest.raises(ImageError, match="its reader"):
        hives._isolated(SYSTEM, lambda: {"much": "x" * (2 << 20)})


def test_a_hive_that_is_too_large_is_not_opened(root: Path) -> None:
    with open(system_of(root), "r+b") as file:
        file.truncate(hives.READ_LIMIT + 1)
    with RootFs(str(root)) as files, pytest.raises(ImageError, match="more than such a file may have"):
        hives.read_facts(files)


def test_a_large_process_reads_a_hive_as_a_small_one_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hives, "MEMORY", 64 << 20)
    with mmap.mmap(-1, 2 << 30), RootFs(str(root)) as files:
        assert hives.read_facts(files).system_is_merged
