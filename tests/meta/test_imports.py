"""Who may import whom: rooms share the library and never each other."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]

#: Search root, package, and what it may import besides the standard library.
ALLOWED = {
    "synnefo_light": (TREE / "synnefo_light", {"synnefo_light"}),
    "synnefo_light.store": (TREE / "synnefo_light" / "store", {"synnefo_light", "bitarray"}),
    "snf_image_host": (
        TREE / "snf-image-host" / "snf_image_host",
        {"snf_image_host", "synnefo_light", "requests", "urllib3", "psutil"},
    ),
    "snf_image_helper": (
        TREE / "snf-image-helper" / "snf_image_helper",
        {"snf_image_helper", "synnefo_light", "pyudev", "hivex"},
    ),
    "snf_extstorage": (
        TREE / "extstorage" / "snf_extstorage",
        {"snf_extstorage", "synnefo_light", "rados", "rbd"},
    ),
    "snf_hooks": (TREE / "hooks" / "snf_hooks", {"snf_hooks", "synnefo_light"}),
    "snf_lab": (TREE / "tests" / "lab" / "snf_lab", {"snf_lab", "synnefo_light"}),
}


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    folder, allowed = ALLOWED[package]
    inner = [other for other, _ in ALLOWED.values() if folder in other.parents]
    files = sorted(f for f in folder.rglob("*.py") if not any(other in f.parents for other in inner))
    assert files, f"{folder} has no modules"
    may = allowed | sys.stdlib_module_names
    foreign = {str(f.relative_to(TREE)): extra for f in files if (extra := imported(f) - may)}
    assert foreign == {}


def test_what_runs_without_other_packages_does_not_reach_the_store() -> None:
    """The library itself is in the helper VM, where bitarray is not."""
    folder, _ = ALLOWED["synnefo_light"]
    rooms = [ALLOWED["snf_image_helper"][0]]
    files = [*folder.glob("*.py"), *(f for room in rooms for f in room.rglob("*.py"))]
    assert [str(f) for f in files if "synnefo_light.store" in f.read_text()] == []


def test_only_run_py_and_named_exceptions_start_programs() -> None:
    """`subprocess` is imported by run.py, by the launcher of the helper VM (it needs the process while it lives),
    by the helper's own apply (same reason: none today) and by the lab's terminal (`./lab sh`)."""
    may = {"synnefo_light/run.py", "snf-image-host/snf_image_host/launcher.py", "tests/lab/snf_lab/node.py"}
    found = {
        str(f.relative_to(TREE))
        for folder, _ in ALLOWED.values()
        for f in folder.rglob("*.py")
        if "subprocess" in imported(f)
    }
    assert found <= may, f"these start programs on their own: {sorted(found - may)}"


def test_only_rootfs_opens_paths_of_an_image() -> None:
    """In the helper VM `os.open`, `open` and pathlib's ways to read or write stand in rootfs.py alone."""
    openers = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rename", "chown"}
    folder = ALLOWED["snf_image_helper"][0]
    found: dict[str, list[str]] = {}
    for file in sorted((folder / "tasks").rglob("*.py")):
        calls = [
            name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call) and (name := _called(node)) in openers
        ]
        if calls:
            found[file.name] = calls
    assert found == {}


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
