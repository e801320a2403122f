"""The helper VM on disk files, with nothing of the host half: for tests of what runs inside.

The VM's image is that of SNF_HELPER_IMAGE, of build/helper in this tree, or the installed one.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from synnefo_light import __version__
from synnefo_light.manifest import (
    Failed,
    Finished,
    Manifest,
    Message,
    TaskDone,
    TaskSkipped,
    Warned,
    encode,
    parse_message,
)
from synnefo_light.records import build
from tests.real.snf_image_helper.standing_machine import StandingMachine

TREE = Path(__file__).resolve().parents[3]
NONCE = "00112233445566778899aabbccddeeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came out of one boot: the messages, the console, how long it took.

    `in_order`: QEMU ended with 0, or the VM that stands ready can be used again, or would have lost its power anyway,
    after a failure. `left`: what was found in that VM then and not before.
    """

    messages: tuple[Message, ...]
    console: str
    seconds: float
    in_order: bool
    left: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        return bool(self.messages) and self.messages[-1] == Finished(nonce=NONCE) and self.in_order

    @property
    def failed(self) -> Failed | None:
        return next((m for m in self.messages if isinstance(m, Failed)), None)

    @property
    def done(self) -> list[str]:
        return [m.task for m in self.messages if isinstance(m, TaskDone)]

    @property
    def skipped(self) -> dict[str, str]:
        return {m.task: m.reason for m in self.messages if isinstance(m, TaskSkipped)}

    @property
    def warnings(self) -> list[str]:
        return [m.text for m in self.messages if isinstance(m, Warned)]


def image() -> Path:
    """The folder with the VM's image; skips the test if there is none."""
    for folder in (os.environ.get("SNF_HELPER_IMAGE"), TREE / "build" / "helper", "/usr/lib/snf-image-helper"):
        if folder and Path(folder, "helper.json").exists():
            return Path(folder)
    pytest.skip("there is no helper VM image: run snf-image-helper/vm/snf-image-helper-build --output build/helper")


def manifest(disks: list[Path], fields: Mapping[str, object]) -> Manifest:
    """A manifest for these disks; `fields` are given as in JSON."""
    basic = {"helper_version": __version__, "nonce": NONCE, "instance": "web1.example.org", "hostname": "web1"}
    plain = [{"index": n, "size": disk.stat().st_size} for n, disk in enumerate(disks)]
    return build({**basic, "disks": plain, **fields}, Manifest)


def run(
    *disks: Path,
    asked: Mapping[str, object] | None = None,
    raw_manifest: bytes | None = None,
    source: Path | None = None,
) -> Outcome:
    """Have the helper deploy onto the disks, with a manifest that asks for `asked`.

    `source` is an image that the VM is to write onto the first disk. The VM is one that stands ready, booted once in a
    process; `boot` gives the outcome of a VM of its own.
    """
    with tempfile.NamedTemporaryFile() as given:
        given.write(raw_manifest if raw_manifest is not None else encode(manifest(list(disks), asked or {})))
        given.flush()
        plugged = {f"snf-disk{n}": (disk, False) for n, disk in enumerate(disks)}
        if source is not None:
            plugged["snf-source"] = (source, True)
        plugged["snf-manifest"] = (Path(given.name), True)
        machine, started = _standing.pop() if _standing else _booted(), time.monotonic()
        done = machine.deploy(plugged)
    if done.end == "clean":
        _standing.append(machine)
    outcome = _outcome(done.messages, done.console, seconds=time.monotonic() - started, left=done.left)
    in_order = done.end == "clean" or (done.end == "dirty" and outcome.failed is not None)
    return replace(outcome, in_order=in_order)


#: The VM that stands ready, if there is one.
_standing: list[StandingMachine] = []


def _booted() -> StandingMachine:
    machine = StandingMachine(image(), cpu=argument("-cpu"), append=argument("-append"))
    atexit.register(machine.close)
    return machine


def boot(
    *disks: Path,
    asked: Mapping[str, object] | None = None,
    raw_manifest: bytes | None = None,
    mode: str = "run",
    source: Path | None = None,
) -> Outcome:
    """As `run`, but boot a VM for it, as the host half does, and wait for its end."""
    folder = image()
    with tempfile.TemporaryDirectory() as work:
        given, channel, console = Path(work, "manifest"), Path(work, "channel"), Path(work, "console")
        given.write_bytes(
            raw_manifest if raw_manifest is not None else encode(manifest(list(disks), asked or {})) if disks else b""
        )
        started = time.monotonic()
        done = subprocess.run(
            [
                *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", argument("-cpu")),
                *("-m", "256", "-smp", "1"),
                *("-nodefaults", "-nic", "none", "-display", "none", "-no-user-config", "-no-reboot"),
                *("-kernel", folder / "vmlinux", "-initrd", folder / "initrd.img"),
                *("-append", argument("-append").replace("snf.helper=run", f"snf.helper={mode}")),
                *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
                *("-chardev", f"file,id=channel,path={channel}", "-serial", "chardev:channel"),
                *_disk("snf-root", folder / "root.squashfs", read_only=True),
                *_disk("snf-manifest", given, read_only=True),
                *(_disk("snf-source", source, read_only=True) if source is not None else ()),
                *(word for n, disk in enumerate(disks) for word in _disk(f"snf-disk{n}", disk, read_only=False)),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        seconds = time.monotonic() - started
        shown = console.read_bytes().decode("utf-8", "replace") + done.stderr.decode("utf-8", "replace")
        said = channel.read_bytes()
    return replace(_outcome(said, shown, seconds=seconds), in_order=done.returncode == 0)


def _outcome(said: bytes, console: str, *, seconds: float, left: tuple[str, ...] = ()) -> Outcome:
    messages = tuple(parse_message(line, seq=n) for n, line in enumerate(said.splitlines(), 1))
    return Outcome(messages=messages, console=console, seconds=seconds, in_order=False, left=left)


def argument(option: str) -> str:
    """What the host half passes with this option, except that this launcher must not import another room."""
    lines = (TREE / "tests/golden/snf_image_host/command-tcg-file.txt").read_text().splitlines()
    return lines[lines.index(option) + 1]


def _disk(serial: str, path: Path, *, read_only: bool) -> list[str]:
    file = {"driver": "file", "filename": str(path), "read-only": read_only}
    options = json.dumps({"driver": "raw", "file": file, "node-name": serial, "read-only": read_only})
    return ["-blockdev", options, "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]


def uptime(console: str) -> float:
    """The kernel's clock when it powered off, in seconds."""
    found = re.findall(r"\[ *([0-9.]+)\] reboot: Power down", console)
    return float(found[-1])
