"""One guest through Ganeti: ordered with gnt-instance as an admin would, followed as it deploys, entered once it runs.

The demo and the benchmark share this, so that what is measured is what is shown.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from snf_lab import cluster, guest_console, nspawn
from snf_lab.guest_console import Console
from snf_lab.guest_image import GuestImage
from snf_lab.node import Node
from snf_lab.progress import Step
from synnefo_light.errors import PeerError, ToolError
from synnefo_light.log import escape

IMAGE_FOLDER = "/var/lib/snf-image"
JOURNAL_FOLDER = "/run/snf-image"
DEPLOY_S = 1200.0
LOGIN_S = 300.0
SSH_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An instance as an admin asks for it."""

    name: str
    image: str  # a name in the node's image folder
    disk_gib: int
    password: str
    authorized_key: str
    file_path: str
    file_content: bytes
    file_owner: str
    file_group: str
    file_mode: int

    @property
    def personality(self) -> str:
        """snf-image's img_personality: the mode is a decimal number there."""
        file = {
            "path": self.file_path,
            "contents": base64.b64encode(self.file_content).decode(),
            "owner": self.file_owner,
            "group": self.file_group,
            "mode": self.file_mode,
        }
        return json.dumps([file])


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the deployment's own record says of its course. Times in ms, sizes in bytes."""

    copied: int
    copy_ms: int
    accel: str
    helper_ms: int
    helper_boot_ms: int
    helper_cpu_ms: int
    helper_peak_rss: int
    host_peak_rss: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    name: str
    address: str
    started: float  # time.monotonic() at the order
    deploy_s: float
    figures: Figures


def quote_value(value: str) -> str:
    """A value for -O: Ganeti splits at bare commas and takes a backslash as the escape of what follows it."""
    return re.sub(r"([,\\])", r"\\\1", value)


def render_parameters(parameters: Mapping[str, str]) -> str:
    return ",".join(f"{name}={quote_value(value)}" for name, value in parameters.items())


def plan_add(order: Order, *, node: str) -> list[str]:
    public = {
        "img_id": order.image,
        "img_format": "diskdump",
        "auth_keys": order.authorized_key,
        "img_personality": order.personality,
    }
    return [
        *("gnt-instance", "add", "-t", "file", "--disk", f"0:size={order.disk_gib}G", "-n", node),
        *("-B", "memory=512m,vcpus=2", "--net", f"0:network={cluster.NETWORK},ip=pool"),
        *("--no-name-check", "--no-ip-check", "-o", "snf-image+default", "-O", render_parameters(public)),
        # Secret: in no job file and not in Ganeti's configuration.
        *("--os-parameters-secret", render_parameters({"img_passwd": order.password})),
        order.name,
    ]


def show_image(node: Node, image: GuestImage, *, name: str) -> None:
    """Let a node have an image of the host's cache in its image folder, without a copy. May be repeated."""
    target = f"{IMAGE_FOLDER}/{name}"
    script = (
        'set -eu; if mountpoint -q "$2"; then umount "$2"; fi; '
        'mkdir -p "${2%/*}"; : >"$2"; mount --bind "$1" "$2"; mount -o remount,bind,ro "$2"'
    )
    node.run(["sh", "-c", script, "sh", f"{nspawn.IMAGES}/{image.path.name}", target])


def remove_instance(node: Node, name: str) -> None:
    """Remove the instance of a former run, whatever state it is in: its job may still run when its run was killed."""
    listed = node.run(["gnt-job", "list", "--no-headers", "--separator=|", "--output=id,status,summary"]).text
    for job in jobs_under_way(listed, instance=name):
        node.run(["gnt-job", "watch", job], ok=range(256), timeout_s=DEPLOY_S)
    if name in {instance.name for instance in cluster.instances(node)}:
        node.run(["gnt-instance", "remove", "-f", "--shutdown-timeout=0", name], timeout_s=300)
    # Or the next deployment would be shown at the end of this one until its own record begins.
    node.run(["rm", "-f", f"{JOURNAL_FOLDER}/{name}.jsonl"])


def jobs_under_way(listed: str, *, instance: str) -> tuple[str, ...]:
    """The ids of an instance's jobs that have not ended, from lines "id|status|summary"."""
    rows = (line.split("|", 2) for line in listed.splitlines())
    ended = ("success", "error", "canceled")
    return tuple(row[0] for row in rows if len(row) == 3 and row[1] not in ended and f"({instance})" in row[2])


def deploy(node: Node, order: Order, *, step: Step) -> Deployed:
    """Order the instance and follow it until Ganeti says that it runs.

    Raises ToolError when Ganeti refuses or the deployment fails; its last line is snf-image's own sentence.
    """
    started = time.monotonic()
    ended: Future[object] = Future()

    def add() -> None:
        try:
            ended.set_result(node.run(plan_add(order, node=node.name), timeout_s=DEPLOY_S))
        except Exception as e:
            ended.set_exception(e)

    # A daemon, so that Ctrl-C does not wait for Ganeti: the job goes on there, and the next run waits for it.
    threading.Thread(target=add, daemon=True).start()
    while not ended.done():
        step.note, step.fraction = describe_course(read_journal(node, order.name))
        time.sleep(0.2)
    step.note, step.fraction = "", None
    ended.result()
    deploy_s = time.monotonic() - started
    address = node.run(["gnt-instance", "list", "--no-headers", "--output=nic.ip/0", order.name]).text.strip()
    return Deployed(
        name=order.name,
        address=address,
        started=started,
        deploy_s=deploy_s,
        figures=parse_figures(read_journal(node, order.name)),
    )


def read_journal(node: Node, name: str) -> list[dict[str, object]]:
    """The lines that the deployment has written so far; a half-written last one is left for the next reading."""
    path = Path(f"/proc/{node.pid}/root{JOURNAL_FOLDER}/{name}.jsonl")
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [record for line in lines if isinstance(record := json.loads(line), dict)]


def describe_course(records: list[dict[str, object]]) -> tuple[str, float | None]:
    """Where a deployment is, in words, and the fraction of its copy when it is copying."""
    if not records:
        return "", None
    last = records[-1]
    done, total = last.get("done"), last.get("total")
    match last.get("type"):
        case "copy-progressed" if isinstance(done, int) and isinstance(total, int) and total:
            return f"copying the image, {done >> 20} of {total >> 20} MiB", done / total
        case "started":
            return "copying the image", None
        case "copy-done" | "helper-started":
            return "starting the helper VM", None
        case "task-started" | "task-done" | "task-skipped":
            return f"helper VM: {escape(str(last.get('task')))}", None
        case "finished":
            return "starting the instance", None
    return "", None


def parse_figures(records: list[dict[str, object]]) -> Figures:
    """The figures of the last `finished` record. Raises PeerError when there is none, or one is not a figure."""
    found = [record for record in records if record.get("type") == "finished"]
    if not found:
        raise PeerError("Ganeti says that the instance was deployed, but its record has no `finished` line")
    values = {name: found[-1].get(name) for name in Figures.__dataclass_fields__}
    for name, value in values.items():
        if not isinstance(value, str if name == "accel" else int):
            raise PeerError(f"the deployment's record has {name}={value!r}, which is not a figure")
    return Figures(**values)  # type: ignore[arg-type]


def log_in_at_console(
    node: Node, name: str, *, password: str, told: Callable[[str], None], timeout_s: float = LOGIN_S
) -> str:
    """Log in as root with the password at the serial console; "USER HOSTNAME" as the shell there has it."""
    with guest_console.connected(node_pid=node.pid, instance=name) as line:
        console = Console(line, told=told)
        console.log_in(user="root", password=password, timeout_s=timeout_s)
        answer = console.ask('echo "$(id -un) $(hostname)"', timeout_s=SSH_S)
        line.send(b"exit\r")
    return answer


class SshKey:
    """A key pair on a node for entering guests, and what the guests' servers presented."""

    def __init__(self, node: Node, *, folder: str) -> None:
        self._node = node
        self.folder = folder

    def ensure(self) -> str:
        """Make the pair unless it is there; returns the public key's line."""
        script = (
            'set -eu; umask 077; mkdir -p "$1"; cd "$1"; [ -e key ] || ssh-keygen -q -t ed25519 -N "" -f key -C lab'
        )
        self._node.run(["sh", "-c", script, "sh", self.folder])
        return self._node.read(f"{self.folder}/key.pub").decode().strip()

    def forget_hosts(self) -> None:
        self._node.run(["rm", "-f", f"{self.folder}/known_hosts"])

    def command(self, address: str) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": f"{self.folder}/known_hosts",
            "HashKnownHosts": "no",
            "LogLevel": "ERROR",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-i", f"{self.folder}/key", *words, f"root@{address}"]

    def run(self, address: str, script: str, *words: str, timeout_s: float = LOGIN_S) -> str:
        """Run a shell script in the guest; while its sshd does not answer yet, try again. Returns what it printed."""
        command = [*self.command(address), shlex.join(["sh", "-s", *words])]
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self._node.run(command, stdin=script.encode(), timeout_s=SSH_S).text
            except ToolError as e:
                # 255 is ssh's own trouble; anything else came from the script.
                refused = "Permission denied" in e.stderr or "HOST IDENTIFICATION HAS CHANGED" in e.stderr
                if refused or "exited with 255" not in e.outcome or time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def presented(self, address: str) -> str:
        """The fingerprint of the host key with which the server at `address` answered."""
        shown = self._node.run(["ssh-keygen", "-l", "-F", address, "-f", f"{self.folder}/known_hosts"]).text
        return parse_fingerprint(shown)


def parse_fingerprint(shown: str) -> str:
    """The first fingerprint in what `ssh-keygen -l -F` prints ("# Host ... found: line 1", then the key)."""
    words = [word for line in shown.splitlines() if not line.startswith("#") for word in line.split()]
    found = [word for word in words if word.startswith("SHA256:")]
    if not found:
        raise PeerError(f"ssh-keygen said {shown[:80]!r}, which has no fingerprint")
    return found[0]
