"""One attack on a node of its own, watched from all sides, and what must be true after it.

Whatever the image is, the deployment ends within its limit, with success or with a sentence that names the task that
failed; no process stays; a failed disk cannot boot; the host did only what is on the list (trace.py); and of the host
nothing was changed (host.py).
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.attack.host import Changes, watched
from tests.attack.trace import Allowed, Trace, trace
from tests.deployments import SCRIPTS
from tests.real.snf_image_host.node import Fake, fake_node

MIB = 1 << 20
LIMIT_S = 180  # of the helper VM
REPEATS = 2
OVERHEAD_S = 45  # strace, the copy, and killing what is over its limit
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK attack"
SECRET = "correct horse"
PARAMETERS = {
    "img_format": "diskdump",
    "img_passwd": SECRET,
    "auth_keys": KEY,
    "img_personality": '[{"path": "/etc/injected/motd", "contents": "aGVsbG8K", "mode": 416}]',
}
OK, REFUSED = 0, 4
#: The task that failed and why, or where the VM was when it died.
CAUSE = re.compile(
    r"was not deployed: (the task \w+ failed: .{8,}|the helper VM( failed: .{8,}|.*\(?in the task \w+.*|"
    r" ended (at its start|between tasks).*))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """An image, and what must come of it.

    `make` writes the image's file. `cause`: what the last sentence of a failure must hold, a regular expression.
    """

    name: str
    make: Callable[[Path], None]
    disk_mib: int = 64
    parameters: Mapping[str, str] = field(default_factory=dict)
    must: Literal["fail", "succeed", "either"] = "either"
    cause: str = ""
    #: Looks into the disk of a success. Returns what is wrong.
    inspect: Callable[[Path, str], list[str]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    attack: str
    returncode: int
    sentence: str
    seconds: float
    faults: tuple[str, ...]


def attempt(attack: Attack, *, helper: Path, limit_s: int = LIMIT_S) -> Verdict:
    """Deploy the image once; again if something happened on the host, which somebody else may have done: what is the
    image's doing happens each time."""
    verdict, changes = _once(attack, helper, limit_s)
    seen = changes.all()
    for _ in range(REPEATS if seen else 0):
        again, later = _once(attack, helper, limit_s)
        verdict = dataclasses.replace(verdict, faults=(*verdict.faults, *again.faults))
        seen = [fault for fault in later.all() if _kind(fault) in {_kind(other) for other in seen}]
        if not seen:
            break
    return dataclasses.replace(verdict, faults=(*verdict.faults, *seen))


def _kind(fault: str) -> str:
    return " ".join(fault.split()[:3])


def _once(attack: Attack, helper: Path, limit_s: int) -> tuple[Verdict, Changes]:
    with fake_node(helper=helper) as node:
        node.configure(qemu=None, accel="tcg", tcg_limit_s=limit_s)
        attack.make(node.images / "image.raw")
        disk = node.disk(attack.disk_mib)
        given = {**PARAMETERS, "img_id": "image.raw", **attack.parameters}
        env = node.environment("create", disk, instance="attacked", NIC_0_IP="10.0.0.5", **given)
        allowed = Allowed(
            disk=disk,
            readable=(node.folder, helper, helper.resolve(), SCRIPTS),
            writable=tuple(node.folder / name for name in ("run", "log", "spool")),
        )
        begun = time.monotonic()
        with watched() as changes:
            seen, done = trace(
                [str(SCRIPTS / "create")],
                env=env,
                allowed=allowed,
                log=node.folder / "trace",
                timeout_s=limit_s + 4 * OVERHEAD_S,
            )
        seconds = time.monotonic() - begun
        output = done.stdout.decode("utf-8", "replace")
        lines = [line for line in output.splitlines() if line.strip()]
        sentence = lines[-1] if lines else ""
        faults = [*seen.violations(), *_wrong(attack, node, disk, done.returncode, output, sentence)]
        if seconds > limit_s + OVERHEAD_S:
            faults.append(f"it took {seconds:.0f} s, over its limit of {limit_s} s")
        faults += _untraced(seen)
    verdict = Verdict(
        attack=attack.name,
        returncode=done.returncode,
        sentence=sentence,
        seconds=round(seconds, 1),
        faults=tuple(faults),
    )
    return verdict, changes


def _untraced(seen: Trace) -> list[str]:
    """A check of the check: a deployment that was not seen to start QEMU was not seen at all."""
    if not any(name.startswith("qemu-system") for name in seen.executed):
        return [f"the helper VM was not seen to start; seen were {', '.join(sorted(seen.executed))}"]
    return []


def _wrong(attack: Attack, node: Fake, disk: Path, returncode: int, output: str, sentence: str) -> list[str]:
    faults = []
    if "Traceback" in output or "the helper broke" in output or "fault of snf-image itself" in output:
        faults.append(f"it broke: {output[-600:]}")
    if SECRET in output:
        faults.append("the password was said")
    if odd := re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", output):
        faults.append(f"control characters reached the log: {odd!r}")
    if alive := node.alive():
        faults.append(f"processes stayed: {alive}")
    if returncode == REFUSED:
        return faults + _wrong_failure(attack, disk, sentence)
    if returncode != OK:
        return [*faults, f"create ended with {returncode}: {output[-600:]}"]
    if attack.must == "fail":
        faults.append("it succeeded")
    return faults + (attack.inspect(disk, "attacked") if attack.inspect is not None else [])


def _wrong_failure(attack: Attack, disk: Path, sentence: str) -> list[str]:
    faults = []
    if not CAUSE.search(sentence):
        faults.append(f"the sentence does not name the cause: {sentence}")
    with open(disk, "rb") as file:
        if file.read(MIB) != bytes(MIB):
            faults.append("the disk of a failure may boot")
    if attack.must == "succeed":
        faults.append(f"it failed: {sentence}")
    elif attack.cause and not re.search(attack.cause, sentence):
        faults.append(f"{attack.cause!r} is not in the sentence: {sentence}")
    return faults
