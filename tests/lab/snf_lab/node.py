"""One node: a Debian that boots its own systemd on an overlay of the cached root.

Alive, it is a systemd-nspawn on the host and, below it, the node's PID 1 with namespaces of its own. It is found by
its network namespace, so a lab command that died leaves no node that the next one cannot see.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from snf_lab import cgroups, fabric, mounts, nspawn, processes, volumes
from snf_lab.state import RELEASES, TREE, LabConfig, State
from snf_lab.ties import TIE
from synnefo_light.errors import EnvironmentFault, ToolError
from synnefo_light.run import PATH, Completed, Runner, run

BOOT_TIMEOUT_S = 180.0

#: A shell script: go into the cgroups named before "--", then become what follows it.
JOIN_AND_EXEC = 'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done; shift; exec "$@"'

#: A shell script: replace file $1, mode $2, owner $3, by stdin.
REPLACE_FILE = """set -eu
mkdir -p "$(dirname "$1")"
cat >"$1.new"
chown "$3" "$1.new"
chmod "$2" "$1.new"
mv "$1.new" "$1"
"""


class Node:
    """Node `number` (1 to 4) of a lab; its methods need no lock, except those that boot and cut it."""

    def __init__(self, state: State, number: int, runner: Runner = run) -> None:
        self.number = number
        self.name = fabric.node_name(number)
        self.management_ip = fabric.management_ip(number)
        self._state = state
        self._host = runner
        self._fabric = fabric.Fabric(state.netns, runner)
        self._pid: int | None = None

    # --- what it is

    @property
    def folder(self) -> Path:
        return self._state.node(self.number)

    @property
    def root(self) -> Path:
        """The node's root as the host sees it; mounted while the node is on."""
        return self.folder / "root"

    @property
    def console_log(self) -> Path:
        return self.folder / "console.log"

    def cgroups(self, part: str) -> list[Path]:
        """The node's cgroups in all hierarchies: part "node" is its systemd's, "entered" is for what enters later.

        Two, because in v2 a cgroup whose controllers are handed down may hold no process itself.
        """
        return [h.parent / self._state.name / f"{part}{self.number}" for h in cgroups.read_hierarchies()]

    @property
    def pid(self) -> int:
        """The PID, on the host, of the node's PID 1. Raises EnvironmentFault when the node is off."""
        found = self.find_pid()
        if found is None:
            raise EnvironmentFault(f"node {self.number} is off; switch it on with ./lab boot {self.number}")
        return found

    def find_pid(self) -> int | None:
        """As `pid`; None when the node is off."""
        netns = processes.identity(self._fabric.namespace(self.number))
        if netns is None:
            return None
        known = processes.read_process(self._pid) if self._pid else None
        if known is None or known.netns != netns or not processes.is_first(known):
            self._pid = processes.find_first(processes.read_processes(), netns)
        return self._pid

    # --- what one does with it

    def enter(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, tied: bool = False
    ) -> list[str]:
        """The words that run a command inside the node, in an environment that has nothing of the host's.

        A tied one is killed when we end: twice said, because nsenter starts the command as its child.
        """
        tie = TIE if tied else ()
        inside = {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8", **(env or {})}
        return [
            *[*tie, "sh", "-ec", JOIN_AND_EXEC, "sh", *map(str, self.cgroups("entered")), "--"],
            *["nsenter", f"--target={self.pid}", "--mount", "--net", "--uts", "--ipc", "--pid", "--root", "--wd"],
            *["--", *tie, "env", "--ignore-environment", *(f"{key}={value}" for key, value in inside.items())],
            *(os.fspath(word) for word in argv),
        ]

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: bytes | None = None,
        ok: Collection[int] = (0,),
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program inside the node, as root, in /. The same promises as `synnefo_light.run.run`; `argv` of the
        result and of a ToolError is the command as given, not the words that entered the node."""
        words = [os.fspath(word) for word in argv]
        try:
            done = self._host(self.enter(words, env=env, tied=True), stdin=stdin, ok=ok, timeout_s=timeout_s)
        except ToolError as e:
            raise ToolError(words, f"{e.outcome} on {self.name}", e.stderr) from e
        return Completed(argv=tuple(words), returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def replace_process(self, argv: Sequence[str]) -> None:
        """Become a command inside the node: its exit status, input, output and signals are then the caller's own."""
        env = {"TERM": os.environ.get("TERM", "dumb")}
        words = self.enter(argv, env=env)
        sys.stdout.flush()
        os.execvp(words[0], words)

    def read(self, path: str) -> bytes:
        """A file of the node. Links are followed as inside the node."""
        return self.run(["cat", "--", path]).stdout

    def write(self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "root:root") -> None:
        """Make or replace a file of the node, and its folders."""
        self.run(["sh", "-c", REPLACE_FILE, "sh", path, f"{mode:o}", owner], stdin=content)

    def exists(self, path: str) -> bool:
        return self.run(["test", "-e", path], ok=(0, 1)).returncode == 0

    # --- power

    def boot(self, config: LabConfig, binds: Sequence[nspawn.Bind]) -> None:
        """Switch the node on, or do nothing when it is on; returns when its systemd has started everything.

        What it wrote in former lives is still there. Raises EnvironmentFault when a unit fails or time runs out.
        """
        if self.find_pid() is not None:
            self._wait_until_running()
            return
        with contextlib.ExitStack() as undo:
            undo.callback(self.cut)
            self._mount(self._state.cache / "roots" / config.root)
            self._prepare()
            namespace = self._fabric.make_node(self.number)
            groups = cgroups.make(cgroups.read_hierarchies(), f"{self._state.name}/node{self.number}")
            cgroups.make(cgroups.read_hierarchies(), f"{self._state.name}/entered{self.number}")
            words = nspawn.plan_nspawn(
                number=self.number,
                machine=f"{self._state.name}-node{self.number}",
                release=RELEASES[config.release],
                root=self.root,
                binds=tuple(binds),
                cgroup_v2=cgroups.is_v2_only(),
            )
            self._start(groups, [*fabric.inside(namespace), *words])
            self._wait_until_running()
            undo.pop_all()

    def cut(self) -> None:
        """The power cut: everything in the node dies at once and its cables go dead; its disk stays as it was.

        A node that is off stays off. Raises EnvironmentFault or ToolError when something of it cannot be ended.
        """
        netns = processes.identity(self._fabric.namespace(self.number))
        groups = [*self.cgroups("node"), *self.cgroups("entered")]

        def alive() -> set[int]:
            return cgroups.pids(groups) | {p.pid for p in processes.read_processes() if p.netns == netns}

        processes.kill_all(alive)
        cgroups.remove(groups)
        if self._fabric.switch.exists():
            self._fabric.remove_node(self.number)
        self._detach_loops()
        self._unmount()

    def erase(self) -> None:
        """Cut the power and throw away all that the node ever wrote."""
        self.cut()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _mount(self, lower: Path) -> None:
        if mounts.is_mounted(self.root):
            return
        upper, work = self.folder / "upper", self.folder / "work"
        for folder in (self.root, upper, work):
            folder.mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        self._host(["mount", "-t", "overlay", "-o", options, "overlay", self.root], timeout_s=30)

    def _unmount(self) -> None:
        deadline = time.monotonic() + 10
        while mounts.is_mounted(self.root):
            try:
                self._host(["umount", self.root], timeout_s=30)
            except ToolError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _detach_loops(self) -> None:
        """Loop devices outlive who made them: those with this node's tag are its own, and those on its overlay."""
        volumes.detach_loops(self._state, self.number, self._host)
        if not mounts.is_mounted(self.root):
            return
        device = self.root.stat().st_dev
        for loop in mounts.plan_loops(
            mounts.read_loops(self._host), below=self.folder, devices={(os.major(device), os.minor(device))}
        ):
            self._host(["losetup", "--detach", loop], timeout_s=20)

    def _prepare(self) -> None:
        """Make the overlay this node's: its names, its keys. Only once in its life: the marker is written last."""
        marker = self.folder / "prepared"
        if marker.exists():
            return
        for folder in nspawn.NODE_FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        devices = [device for device in nspawn.DEVICES if Path(device).exists()]
        for file in nspawn.node_files(self.number, machine_id=secrets.token_hex(16), devices=devices):
            path = self.root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.content)
            path.chmod(file.mode)
        self._host(["chroot", self.root, "ssh-keygen", "-A"], timeout_s=60)
        marker.touch()

    def _start(self, groups: Sequence[Path], words: Sequence[str | Path]) -> None:
        """Start the container in its cgroups, detached from us: it stays when we end."""
        script = 'exec >"$1" 2>&1; shift; ' + JOIN_AND_EXEC
        argv = ["setsid", "--fork", "sh", "-ec", script, "sh", self.console_log, *groups, "--", *words]
        self._host(argv, timeout_s=20, env=nspawn.NSPAWN_ENVIRONMENT)

    def _wait_until_running(self) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        answer = "not started"
        while time.monotonic() < deadline:
            if self.find_pid() is not None:
                # Status 1 for every answer but "running"; before D-Bus is there, no answer but an error.
                with contextlib.suppress(ToolError):
                    shown = self.run(["systemctl", "is-system-running"], ok=range(256), timeout_s=20)
                    answer = shown.text.strip() or answer
                if answer == "running":
                    return
                if answer == "degraded":
                    failed = self.run(["systemctl", "--failed", "--plain", "--no-legend"], ok=range(256)).text
                    units = " ".join(line.split()[0] for line in failed.splitlines() if line.strip())
                    raise EnvironmentFault(
                        f"node {self.number} booted, but these units failed: {units or 'none is named'}; "
                        f"its console is in {self.console_log}"
                    )
            time.sleep(0.1)
        raise EnvironmentFault(
            f"node {self.number} was not up after {BOOT_TIMEOUT_S:.0f} s ({answer}); "
            f"its console is in {self.console_log}"
        )


def standard_binds(state: State, config: LabConfig) -> tuple[nspawn.Bind, ...]:
    """What every node sees of the host: the shared directory, the packages, the images, and with --dev the tree."""
    binds = [
        nspawn.Bind(source=state.shared, target=nspawn.SHARED_STORAGE, writable=True),
        nspawn.Bind(source=state.repo, target=nspawn.REPO),
        nspawn.Bind(source=state.images, target=nspawn.IMAGES),
    ]
    if config.storage == "directory":
        binds.append(volumes.bind(state))
    if config.dev:
        binds.append(nspawn.Bind(source=TREE, target=nspawn.TREE))
    return tuple(binds)
