from __future__ import annotations

import os
from pathlib import Path

import pytest

from synnefo_light.errors import EnvironmentFault
from synnefo_light.files import locked, read_bounded, sweep_temporary, write_atomic


def test_a_written_file_has_content_and_mode(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"one", mode=0o600)
    write_atomic(tmp_path / "a", b"two", mode=0o640)
    assert (tmp_path / "a").read_bytes() == b"two"
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o640
    assert os.listdir(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a", b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("synnefo_light.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "\U0001f40d" * 63])
def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path, name: str) -> None:
    write_atomic(tmp_path / name, b"one")
    write_atomic(tmp_path / name, b"two")
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == b"two"


def test_a_link_at_the_name_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "a").symlink_to("victim")
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "a").is_symlink()


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", limit=5) == b"12345"
    with pytest.raises(EnvironmentFault, match="larger than the 4 bytes"):
        read_bounded(tmp_path / "a", limit=4)


def test_only_old_temporary_files_are_swept(tmp_path: Path) -> None:
    for name in (".tmp-old", ".tmp-young", "file"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".tmp-old", (0, 0))
    os.utime(tmp_path / "file", (0, 0))
    sweep_temporary(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".tmp-young", "file"]


def test_a_lock_is_held_by_one_and_free_afterwards(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "lock"),
        pytest.raises(EnvironmentFault, match="locked by another process"),
        locked(tmp_path / "lock"),
    ):
        pass
    with locked(tmp_path / "lock"):
        pass
