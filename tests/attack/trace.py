"""What the processes of a deployment asked of the kernel, by strace(1), held against one list.

Everything that is executed, opened, mounted, loaded or asked of a device must be on the list; whatever is not is a
violation. A file that was opened counts by the path that it really is, after every link.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.deployments import TREE

BIRTHS = ("clone", "clone3", "fork", "vfork")
EXECUTES = ("execve", "execveat")
OPENS = ("open", "openat", "openat2", "creat")
READS = ("read", "pread64", "readv", "preadv", "preadv2", "mmap", "sendfile", "splice", "copy_file_range")
#: None of these has a place in a deployment, but for unshare(1), which makes its new namespace's mounts private.
MOUNTS = ("mount", "umount2", "move_mount", "fsopen", "fsconfig", "fsmount", "open_tree", "mount_setattr")
NEVER = ("init_module", "finit_module", "delete_module", "kexec_load", "swapon", "pivot_root", "chroot", "mknod")
#: Asked of a file or device other than by ioctl: another program's probe would be seen by what it opens.
TRACED = ",".join((*BIRTHS, *EXECUTES, *OPENS, *READS, *MOUNTS, *NEVER, "ioctl"))

#: Programs that a deployment may execute.
MAY_EXECUTE = frozenset(
    {
        *("create", "python3", "python3.11", "python3.12", "python3.13", "env"),
        *("setpriv", "timeout", "prlimit", "unshare", "sh", "dash", "qemu-system-x86_64"),
    }
)
#: What may be asked of a device or file: terminals, file flags, KVM, sizes, zeroing, where the holes are.
MAY_IOCTL = re.compile(
    r"TCGETS2?|TCSETS\w*|TIOC\w+|FIOCLEX|FIONBIO|FIONREAD|FS_IOC_FIEMAP|FICLONE\w*|KVM_\w+|"
    r"BLKGETSIZE64|BLKSSZGET|BLKPBSZGET|BLKIO\w+|BLKALIGNOFF|BLKZEROOUT|BLKDISCARD|BLKFLSBUF|BLKGETZONESZ|"
    r"CDROM_\w+|SG_\w+|FS_IOC_FSGETXATTR|XFS_IOC_DIOINFO|SIOC\w+"
)
#: Where a deployment may read: programs and their settings, the kernel's own files, and what the node's settings name.
MAY_READ = re.compile(
    r"/(usr|lib|lib64|bin|sbin|etc|opt)/.*|/(proc|sys)(/.*)?|/(usr|etc)|/|"
    r"/dev/(null|zero|urandom|random|kvm|tty|pts/\d+)|/run/(systemd/userdb|nscd)(/.*)?|/memfd:.*|"
    r"/var/lib/(ganeti|sss|nss\w*)/.*"
)
MAY_NOT_READ = re.compile(
    r"/etc/(g?shadow-?|ssh/.*|ssl/private/.*|lvm/.*|mdadm/.*|crypttab|fstab)|/proc/(kcore|kmem|kallsyms)"
)
MAY_WRITE = re.compile(r"/dev/(null|kvm|tty|pts/\d+)|/proc/(self|thread-self|\d+)/\w+|/memfd:.*|/dev/shm/[\w.]+")

_CALL = re.compile(r"^(?P<pid>\d+)\s+(?P<rest>\S.*)$")
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<rest>.*)$")
_UNFINISHED = re.compile(r"^(?P<head>.*?)\s*<unfinished \.\.\.>$")
_NAME = re.compile(r"^(?P<name>\w+)\((?P<rest>.*)$")
#: In a PID namespace of its own the number that strace uses stands in a comment.
_CHILD = re.compile(r" = (?P<own>\d+)( /\* (?P<outside>\d+) in strace's PID NS \*/)?$")
_OPENED = re.compile(r" = \d+<(?P<path>.*?)>(\(deleted\))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call as strace shows it: what stands behind the name's bracket, result included."""

    pid: str
    name: str
    rest: str

    @property
    def text(self) -> str:
        return f"{self.name}({self.rest}"[:240]

    @property
    def failed(self) -> bool:
        return re.search(r" = -1 E\w+ \(.*\)$", self.rest) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a deployment may open beside what is allowed to all: its disk, and the folders of the node's settings."""

    disk: Path
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    calls: tuple[Call, ...]
    allowed: Allowed

    @property
    def executed(self) -> set[str]:
        return {Path(quoted(c.rest)).name for c in self.calls if c.name in EXECUTES and not c.failed}

    def violations(self) -> list[str]:
        """The calls that a deployment must not make."""
        programs: dict[str, str] = {}
        found: list[str] = []
        for call in self.calls:
            if call.name in BIRTHS:
                if (born := _CHILD.search(call.rest)) is not None:
                    programs.setdefault(born["outside"] or born["own"], programs.get(call.pid, ""))
            elif call.name in EXECUTES and not call.failed:
                programs[call.pid] = Path(quoted(call.rest)).name
            if (what := self._wrong(call, programs.get(call.pid, ""))) is not None:
                found.append(f"{programs.get(call.pid, '?')} {what}: {call.text}")
        return found

    def _wrong(self, call: Call, program: str) -> str | None:
        if call.name in EXECUTES:
            return f"executed {program}" if not call.failed and program not in MAY_EXECUTE else None
        if call.name in MOUNTS:
            return None if call.name == "mount" and _makes_private(call.rest) else "changed what is mounted"
        if call.name in NEVER:
            return "did what no deployment does"
        if call.name == "ioctl":
            request = call.rest.split(", ")[1] if ", " in call.rest else call.rest
            return None if MAY_IOCTL.match(request) else f"asked a device {request}"
        if call.name in READS:
            return "read the disk" if f"<{self.allowed.disk}>" in call.rest and "qemu" not in program else None
        return self._wrong_open(call) if call.name in OPENS else None

    def _wrong_open(self, call: Call) -> str | None:
        opened = _OPENED.search(call.rest)
        if opened is None:  # nothing was opened
            return None
        path, flags = opened["path"], call.rest
        if path == str(self.allowed.disk):
            return None
        if _below(path, self.allowed.writable):
            return None
        if re.search(r"\bO_(WRONLY|RDWR)\b", flags):
            return None if MAY_WRITE.fullmatch(path) or _is_bytecode(path) else f"opened {path} for writing"
        if MAY_NOT_READ.fullmatch(path):
            return f"opened {path}"
        if MAY_READ.fullmatch(path) or _below(path, (*self.allowed.readable, TREE)):
            return None
        return f"opened {path}"


def trace(
    argv: Sequence[str], *, env: Mapping[str, str], allowed: Allowed, log: Path, timeout_s: float = 400
) -> tuple[Trace, subprocess.CompletedProcess[bytes]]:
    """Run a program, and all that it starts, to its end under strace. Both outputs come back as one."""
    strace = ["strace", "-f", "-y", "--seccomp-bpf", "--pidns-translation", "-s", "256", "-e", f"trace={TRACED}"]
    done = subprocess.run(
        [*strace, "-o", str(log), *argv],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        umask=0o077,
        timeout=timeout_s,
        check=False,
    )
    with open(log, errors="replace") as file:
        return Trace(calls=tuple(parse(file)), allowed=allowed), done


def parse(lines: Iterable[str]) -> Iterator[Call]:
    """strace's lines as calls; one that another process interrupted is put together again."""
    begun: dict[str, str] = {}
    for line in lines:
        match = _CALL.match(line.rstrip("\n"))
        if match is None:
            continue
        pid, rest = match["pid"], match["rest"]
        if (resumed := _RESUMED.match(rest)) is not None:
            rest = begun.pop(pid, "") + resumed["rest"]
        if (unfinished := _UNFINISHED.match(rest)) is not None:
            begun[pid] = unfinished["head"]
            continue
        if (named := _NAME.match(rest)) is not None:
            yield Call(pid=pid, name=named["name"], rest=named["rest"])
    # What was begun and never ended was asked for all the same.
    for pid, rest in begun.items():
        if (named := _NAME.match(rest)) is not None:
            yield Call(pid=pid, name=named["name"], rest=named["rest"])


def quoted(rest: str) -> str:
    match = re.search(r'"((?:[^"\\]|\\.)*)"', rest)
    return match[1] if match else ""


def _makes_private(rest: str) -> bool:
    """A change of propagation in a namespace of one's own, not a mount."""
    return ("MS_PRIVATE" in rest or "MS_SLAVE" in rest) and rest.startswith('"none"')


def _is_bytecode(path: str) -> bool:
    """What Python keeps of a module of this tree; for an installed one dpkg has made it."""
    return _below(path, (TREE,)) and Path(path).parent.name == "__pycache__"


def _below(path: str, folders: Iterable[Path]) -> bool:
    return any(path == str(folder) or path.startswith(f"{folder}/") for folder in folders)
