"""The tree about itself: rooms, names, sizes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
ROOMS = ("snf-image-host", "snf-image-helper", "hooks", "extstorage", "network-scripts", "eventd")
NAMELESS = {"utils", "util", "common", "helpers", "misc", "manager"}


def tracked(*endings: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TREE, check=True, capture_output=True).stdout
    files = [TREE / name for name in listed.decode().split("\0") if name]
    return [f for f in files if f.exists() and (not endings or f.suffix in endings)]


def rooms() -> list[Path]:
    return [TREE / room for room in ROOMS if (TREE / room).is_dir()]


def test_there_are_files_to_look_at() -> None:
    assert len(tracked(".py")) > 40
    assert len(rooms()) >= 2


@pytest.mark.parametrize("room", rooms(), ids=lambda r: r.name)
def test_a_rooms_readme_begins_with_where_it_runs_and_as_whom(room: Path) -> None:
    first = (room / "README.md").read_text().splitlines()[0]
    assert re.match(r"\*\*Runs\b.*\bas\b", first), first


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(f) for f in tracked(".py", ".sh", ".c") if f.stem in NAMELESS] == []


def test_no_module_is_longer_than_one_idea() -> None:
    long = {str(f.relative_to(TREE)): n for f in tracked(".py") if (n := len(f.read_text().splitlines())) > 500}
    assert long == {}


def test_no_file_speaks_of_the_machine_it_was_written_on() -> None:
    private = re.compile(rb"/(?:work|farm)/|\.\./shared/|/root/\.pyenv|registry\.npmjs|pypi\.org|deb\.debian\.org")
    found = {str(f.relative_to(TREE)) for f in tracked() if f != Path(__file__) and private.search(f.read_bytes())}
    assert found == set()


def test_the_package_has_the_librarys_version() -> None:
    import synnefo_light

    first = (TREE / "debian" / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"synnefo-light ({synnefo_light.__version__})")
    assert f"## {synnefo_light.__version__}" in (TREE / "NEWS.md").read_text()
