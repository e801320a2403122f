"""Leave nothing: find what is a lab's on this machine and remove it.

Found by looking, never by memory: processes by cgroup and network namespace, mounts by where they are, loop devices by
the file behind them. So it does not matter what was half-way done, or who was killed. Clean-up goes on past what it
cannot remove, and says so at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from snf_lab import cgroups, mounts, processes, volumes
from snf_lab.state import State
from synnefo_light.errors import EnvironmentFault, Error, ToolError
from synnefo_light.run import Runner, run


def sweep(state: State, runner: Runner = run) -> None:
    """Remove the running lab: its processes, cgroups, loop devices, namespaces, mounts, and `run/`.

    A second call finds nothing to do. Raises EnvironmentFault naming what is left, after having tried everything.
    """
    left: list[str] = []

    def attempt(act: Callable[[], None]) -> None:
        try:
            act()
        except (Error, OSError) as e:
            left.append(str(e))

    attempt(lambda: _kill(state))
    attempt(lambda: cgroups.remove(_groups(state)))
    attempt(lambda: _detach_loops(state, runner))
    attempt(lambda: _unmount(state.run, runner))
    attempt(lambda: _remove_nspawn_folders(state))
    # Never remove files while something is mounted there: it could be removed from what is mounted.
    if not mounts.plan_unmounts(mounts.read_mounts(), state.run) and state.run.exists():
        attempt(lambda: shutil.rmtree(state.run))
    if left:
        raise EnvironmentFault(f"the lab in {state.path} is not wholly gone: {'; '.join(left)}")


def purge_cache(state: State) -> None:
    """Remove the cache and, when nothing else is in it, the state directory. A second call finds nothing to do."""
    if state.cache.exists():
        shutil.rmtree(state.cache)
    (state.path / "lock").unlink(missing_ok=True)
    if state.path.exists() and not any(state.path.iterdir()):
        state.path.rmdir()


def _groups(state: State) -> list[Path]:
    return [hierarchy.parent / state.name for hierarchy in cgroups.read_hierarchies()]


def _kill(state: State) -> None:
    namespaces = {processes.identity(file) for file in state.netns.glob("*")} if state.netns.exists() else set()
    groups = _groups(state)
    processes.kill_all(
        lambda: cgroups.pids(groups) | {p.pid for p in processes.read_processes() if p.netns in namespaces}
    )


def _remove_nspawn_folders(state: State) -> None:
    """systemd-nspawn makes an empty folder per container and leaves it."""
    folder = Path("/run/systemd/nspawn/propagate")
    for path in (*folder.glob(f"{state.name}-node*"), folder, folder.parent):
        with contextlib.suppress(OSError):  # absent, or another container's as well
            path.rmdir()


def _detach_loops(state: State, runner: Runner) -> None:
    loops = mounts.read_loops(runner)
    if not loops:
        return
    below = [m for m in mounts.read_mounts() if m.point.is_relative_to(state.run)]
    ours = {m.device for m in below if m.kind in ("overlay", "xfs")}
    found = mounts.plan_loops(loops, below=state.run, devices=ours, inodes=_shared_files(state))
    for device in dict.fromkeys([*(loop.device for loop in volumes.loops_on(state, loops)), *found]):
        volumes.release(device, runner)


def _shared_files(state: State) -> set[tuple[tuple[int, int], int]]:
    """The files of the shared directory, by identity: a node sees them under another name."""
    found = set()
    for folder, _, names in os.walk(state.shared):
        for name in names:
            status = os.lstat(Path(folder) / name)
            found.add(((os.major(status.st_dev), os.minor(status.st_dev)), status.st_ino))
    return found


def _unmount(below: Path, runner: Runner) -> None:
    deadline = time.monotonic() + 10
    while points := mounts.plan_unmounts(mounts.read_mounts(), below):
        try:
            runner(["umount", points[0]], timeout_s=30)
        except ToolError:
            # Killed processes hold it until they are reaped.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
