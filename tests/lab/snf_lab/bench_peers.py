"""The peers that a deployment is measured against: libguestfs's own tools, doing the same work on the same image.

    guestfish       one session in place: grow the partition, check, grow the file system, all the edits
    virt-customize  the edits alone, as most people would make them
    virt-resize     the growing alone, by copying into a second disk

They run in a Debian tree of their own in the cache, by chroot in a private mount namespace, so that the host gets
neither their packages nor their mounts. Each measurement starts from a fresh sparse copy of the image, and the copy is
not counted. The first appliance that supermin builds is not counted either (`Peers.warm_up`). What a peer made is
checked by reading the disk again with other tools: a peer that was quick because it did nothing would flatter nobody.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shlex
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_lab.apt import AptSettings
from snf_lab.guest_tree import make_tree, plan_tree
from snf_lab.state import content_hash
from synnefo_light.errors import PeerError
from synnefo_light.run import Runner, run

PACKAGES = (
    "libguestfs-tools",
    "guestfs-tools",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "openssh-client",
    "openssl",
    "e2fsprogs",
)
RELEASE = "bookworm"
INSIDE = "/bench"
LIMIT_S = 900.0
SECTOR = 512
ROOT_DEVICE = "/dev/sda1"
# Those that a deployment makes: no RSA key, where sshd does without.
HOST_KEYS = ("ed25519", "ecdsa")

# A shell script: $1 is the tree, $2 the folder to show it as /bench; the rest is the command. The mounts end with it.
ENTER = f"""set -eu
tree=$1; shown=$2; shift 2
for kernel in proc sys dev; do mount --rbind "/$kernel" "$tree/$kernel"; done
mkdir -p "$tree{INSIDE}"
mount --bind "$shown" "$tree{INSIDE}"
exec chroot "$tree" "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What a deployment asks for, in the words of no tool."""

    hostname: str
    password: str
    authorized_key: str
    interfaces: str
    resolv_conf: str
    file_path: str
    file_content: str
    file_uid: int
    file_gid: int
    file_mode: int

    @property
    def hosts(self) -> str:
        return f"127.0.0.1 localhost\n127.0.1.1 {self.hostname}\n::1 localhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measured run: seconds of the clock, and seconds of CPU of all that it started."""

    wall_s: float
    cpu_s: float


def root_end_sector(disk_size: int) -> int:
    """The last sector of a root that fills a GPT disk, ending on a whole MiB."""
    return (disk_size // (1 << 20) - 1) * (1 << 20) // SECTOR - 1


def render_guestfish(edits: Edits, *, disk_size: int) -> str:
    """The script of the one session. What guestfish has no command for is done with local programs (lines with "!")."""
    written = {
        "/etc/hostname": f"{edits.hostname}\n",
        "/etc/hosts": edits.hosts,
        "/etc/machine-id": "",
        "/etc/network/interfaces": edits.interfaces,
        "/etc/resolv.conf": edits.resolv_conf,
        "/root/.ssh/authorized_keys": f"{edits.authorized_key}\n",
        edits.file_path: edits.file_content,
    }
    lines = [
        f"add-drive {INSIDE}/disk.raw format:raw",
        "run",
        "part-expand-gpt /dev/sda",
        f"part-resize /dev/sda 1 {root_end_sector(disk_size)}",
        f"e2fsck-f {ROOT_DEVICE}",
        f"resize2fs {ROOT_DEVICE}",
        f"mount {ROOT_DEVICE} /",
        "mkdir-p /root/.ssh",
        "chmod 0700 /root/.ssh",
        f"mkdir-p {Path(edits.file_path).parent}",
        *(f"write {path} {quote_guestfish(text)}" for path, text in written.items()),
        "chmod 0600 /root/.ssh/authorized_keys",
        f"chown {edits.file_uid} {edits.file_gid} {edits.file_path}",
        f"chmod 0{edits.file_mode:o} {edits.file_path}",
        "rm-f /var/lib/dbus/machine-id",
        "glob rm-f /etc/ssh/ssh_host_*",
        f"!{KEYS_COMMAND}",
    ]
    for kind in HOST_KEYS:
        name = f"ssh_host_{kind}_key"
        lines += [f"upload {INSIDE}/keys/etc/ssh/{name} /etc/ssh/{name}", f"chmod 0600 /etc/ssh/{name}"]
        lines += [f"upload {INSIDE}/keys/etc/ssh/{name}.pub /etc/ssh/{name}.pub"]
    lines += [
        f"download /etc/shadow {INSIDE}/shadow",
        f"!{SHADOW_COMMAND}",
        f"upload {INSIDE}/shadow /etc/shadow",
        "umount /",
    ]
    return "\n".join(lines) + "\n"


KEYS_COMMAND = f"mkdir -p {INSIDE}/keys/etc/ssh" + "".join(
    f" && ssh-keygen -q -N '' -t {kind} -f {INSIDE}/keys/etc/ssh/ssh_host_{kind}_key" for kind in HOST_KEYS
)
SHADOW_COMMAND = (
    f"hash=$(openssl passwd -6 -in {INSIDE}/password) && day=$(($(date +%s) / 86400)) && "
    f'sed -i "s|^root:[^:]*:[^:]*:|root:$hash:$day:|" {INSIDE}/shadow'
)


def quote_guestfish(text: str) -> str:
    """A word in double quotes, with the escapes of guestfish(1), "QUOTING"."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def plan_virt_customize(edits: Edits) -> list[str]:
    folder = str(Path(edits.file_path).parent)
    return [
        *("virt-customize", "--quiet", "--no-network", "--format", "raw", "-a", f"{INSIDE}/disk.raw"),
        *("--hostname", edits.hostname),
        *("--root-password", f"file:{INSIDE}/password"),
        *("--ssh-inject", f"root:string:{edits.authorized_key}"),
        *("--upload", f"{INSIDE}/hosts:/etc/hosts"),
        *("--truncate", "/etc/machine-id", "--delete", "/var/lib/dbus/machine-id"),
        *("--delete", "/etc/ssh/ssh_host_*"),
        *(
            word
            for kind in HOST_KEYS
            for name in (f"ssh_host_{kind}_key", f"ssh_host_{kind}_key.pub")
            for word in ("--upload", f"{INSIDE}/keys/etc/ssh/{name}:/etc/ssh/{name}")
        ),
        *(word for kind in HOST_KEYS for word in ("--chmod", f"0600:/etc/ssh/ssh_host_{kind}_key")),
        *("--upload", f"{INSIDE}/interfaces:/etc/network/interfaces"),
        *("--upload", f"{INSIDE}/resolv.conf:/etc/resolv.conf"),
        *("--mkdir", folder, "--upload", f"{INSIDE}/file:{edits.file_path}"),
        *("--chmod", f"0{edits.file_mode:o}:{edits.file_path}"),
        # There is no option for the owner; this is how its manual does it: by running the image's own code.
        *("--run-command", f"chown {edits.file_uid}:{edits.file_gid} {shlex.quote(edits.file_path)}"),
    ]


def plan_virt_resize() -> list[str]:
    return [
        *("virt-resize", "--quiet", "--format", "raw", "--output-format", "raw"),
        *("--expand", ROOT_DEVICE, f"{INSIDE}/image.raw", f"{INSIDE}/disk.raw"),
    ]


class Peers:
    """The peers' tree and a place to work; `accel` "tcg" forbids them a KVM that does not run kernels."""

    def __init__(self, *, cache: Path, settings: AptSettings, log: Path, accel: str, runner: Runner = run) -> None:
        self._cache = cache
        self._settings = settings
        self._log = log
        self._run = runner
        self._environment = {
            "LIBGUESTFS_BACKEND": "direct",
            "TMPDIR": "/var/tmp",
            **({"LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"} if accel == "tcg" else {}),
        }

    @property
    def tree(self) -> Path:
        return self._cache / f"libguestfs-{content_hash(RELEASE, *PACKAGES)}"

    def ensure_tree(self) -> None:
        """The tree with the tools; a minute and a half the first time."""
        if self.tree.exists():
            return
        self._cache.mkdir(parents=True, exist_ok=True)
        making = self._cache / f".making-{self.tree.name}"
        if making.exists():
            shutil.rmtree(making)
        words = plan_tree(release=RELEASE, variant="apt", packages=PACKAGES, target=making, settings=self._settings)
        make_tree(words, log=self._log, settings=self._settings, runner=self._run)
        making.rename(self.tree)

    def warm_up(self) -> Sample:
        """Build libguestfs's appliance if it is not there, and boot it once. Returns the time of that one boot."""
        with self._workplace() as work:
            self._measure(work, ["guestfish", "-a", "/dev/null", "run"])
            return self._measure(work, ["guestfish", "-a", "/dev/null", "run"])

    def guestfish(self, edits: Edits, *, image: Path, disk_size: int) -> Sample:
        with self._workplace() as work:
            self._put(work, edits)
            self._copy(image, work / "disk.raw", size=disk_size)
            (work / "script").write_text(render_guestfish(edits, disk_size=disk_size))
            sample = self._measure(work, ["guestfish", "-f", f"{INSIDE}/script"])
            self._check_edits(work / "disk.raw", edits)
            self._check_size(work / "disk.raw", disk_size=disk_size)
            return sample

    def virt_customize(self, edits: Edits, *, image: Path, disk_size: int) -> Sample:
        """The host keys are made before the clock starts: its own way would be the image's code at first boot."""
        with self._workplace() as work:
            self._put(work, edits)
            self._copy(image, work / "disk.raw", size=disk_size)
            self._enter(work, ["sh", "-ec", KEYS_COMMAND])
            sample = self._measure(work, plan_virt_customize(edits))
            self._check_edits(work / "disk.raw", edits)
            return sample

    def virt_resize(self, *, image: Path, disk_size: int) -> Sample:
        with self._workplace() as work:
            self._copy(image, work / "image.raw", size=image.stat().st_size)
            with open(work / "disk.raw", "wb") as disk:
                disk.truncate(disk_size)
            sample = self._measure(work, plan_virt_resize())
            self._check_size(work / "disk.raw", disk_size=disk_size)
            return sample

    @contextlib.contextmanager
    def _workplace(self) -> Iterator[Path]:
        work = self._cache / ".libguestfs-work"
        if work.exists():
            shutil.rmtree(work)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work)

    @staticmethod
    def _put(work: Path, edits: Edits) -> None:
        for name, text in {
            "password": f"{edits.password}\n",
            "hosts": edits.hosts,
            "interfaces": edits.interfaces,
            "resolv.conf": edits.resolv_conf,
            "file": edits.file_content,
        }.items():
            (work / name).write_text(text)

    def _copy(self, image: Path, target: Path, *, size: int) -> None:
        self._run(["cp", "--sparse=always", image, target], timeout_s=LIMIT_S)
        self._run(["truncate", f"--size={size}", target], timeout_s=LIMIT_S)
        # What the copy left in memory to be written would otherwise be written while the clock runs.
        self._run(["sync", target], timeout_s=LIMIT_S)

    def _enter(self, work: Path, words: Sequence[str]) -> str:
        private = ["unshare", "--mount", "--propagation", "private"]
        argv: list[str | Path] = [*private, "sh", "-c", ENTER, "sh", self.tree, work, *words]
        return self._run(argv, timeout_s=LIMIT_S, env=self._environment).text

    def _measure(self, work: Path, words: Sequence[str]) -> Sample:
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        self._enter(work, words)
        wall_s, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Sample(wall_s=round(wall_s, 2), cpu_s=round(cpu_s, 2))

    def _check_edits(self, disk: Path, edits: Edits) -> None:
        """Read the disk with debugfs(8), which none of the peers use. Raises PeerError when something is missing."""
        wanted = {
            "/etc/hostname": edits.hostname,
            "/root/.ssh/authorized_keys": edits.authorized_key.split()[1],
            "/etc/network/interfaces": edits.interfaces.strip(),
            edits.file_path: edits.file_content.strip(),
            "/etc/shadow": "root:$",
        }
        for path, text in wanted.items():
            seen = self._debugfs(disk, f"cat {path}")
            if text not in seen:
                raise PeerError(f"the peer left {path} without {text[:60]!r}: its time counts for nothing")

    def _check_size(self, disk: Path, *, disk_size: int) -> None:
        shown = self._debugfs(disk, "stats")
        blocks = int(next(line.split(":")[1] for line in shown.splitlines() if line.startswith("Block count:")))
        if blocks * 4096 < disk_size * 0.98:
            raise PeerError(f"the peer left a root of {blocks * 4096} bytes on a disk of {disk_size}")

    def _debugfs(self, disk: Path, request: str) -> str:
        table = self._run(["sfdisk", "--json", disk], timeout_s=60).stdout
        device = f"{disk}?offset={find_root_start(table) * SECTOR}"
        return self._run(["debugfs", "-R", request, device], timeout_s=60).text


def find_root_start(table: bytes) -> int:
    """The first sector of the largest partition, from `sfdisk --json`: virt-resize numbers partitions anew."""
    partitions = json.loads(table)["partitiontable"]["partitions"]
    return int(max(partitions, key=lambda partition: int(partition["size"]))["start"])
