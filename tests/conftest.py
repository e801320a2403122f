"""Rules that hold for every test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from snf_lab.ceph import Ceph, Shape, free_ports, new_fsid

from synnefo_light.run import PATH

TREE = Path(__file__).resolve().parent.parent


#: These make loop devices and mounts, which others of them would trip over: where pytest-xdist runs tests side by side
#: they run one after the other, but for those that boot a VM on files. Attacks watch the kernel's log and uevents, so
#: `./lab test` runs them apart from these.
DEVICES = ("real/snf_image_host", "real/snf_extstorage", "real/store/test_sharing.py", "attack/test_controls.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, so that `-m unit` and the list of what may not skip follow the tree."""
    for item in items:
        parts = item.path.relative_to(TREE / "tests").parts
        item.add_marker(getattr(pytest.mark, parts[0]))
        item.add_marker(pytest.mark.xdist_group(name=_group(item)))


def _group(item: pytest.Item) -> str:
    """Tests of one file stay together, but those that boot a VM; so do all that share devices or the session's Ceph."""
    given = (*getattr(item, "fixturenames", ()), *getattr(getattr(item, "callspec", None), "params", {}).values())
    if "ceph" in given or "rados" in given:
        return "ceph"
    place = item.path.relative_to(TREE / "tests").as_posix()
    if item.get_closest_marker("vm"):
        return item.nodeid
    return "devices" if place.startswith(DEVICES) else place


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A real Ceph in memory, one for all tests of a session; they keep apart by the names they use."""
    if shutil.which("ceph-mon", path=PATH) is None or shutil.which("ceph-osd", path=PATH) is None:
        pytest.skip("ceph-mon and ceph-osd are not installed")
    cluster = Ceph(tmp_path_factory.mktemp("ceph") / "cluster")
    try:
        cluster.start(Shape(folder=cluster.folder, fsid=new_fsid(), ports=free_ports()))
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(autouse=True)
def no_processes_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A unit test that starts a program is not one."""
    if request.node.get_closest_marker("unit"):

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise AssertionError(f"a unit test started a program: {args[0] if args else kwargs}")

        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """With SNF_NO_SKIP=1 (CI) a skip is a failure: what a skip hides is named."""
    skipped = terminalreporter.stats.get("skipped", [])
    if os.environ.get("SNF_NO_SKIP") == "1" and skipped:
        terminalreporter.write_line(f"{len(skipped)} tests were skipped, none may be here", red=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("SNF_NO_SKIP") == "1" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
