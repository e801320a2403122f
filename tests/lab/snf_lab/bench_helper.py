"""Where the helper VM's time goes: a deployment of the demo's image by `snf-image run`, beside the bare kernel.

    QEMU and kernel   QEMU's start to the kernel's first program, of a VM whose only program powers off ("bare")
    Python            from there to Python's first line, of a VM whose Python ends there
    init              from there to the helper's first message: modules, the root, imports
    tasks             each, as the journal has it
    rest              between tasks, and from the last message to QEMU's end: inspection, flush, power-off

The bare VMs are started by the same launcher with the same words: a script stands in for QEMU, gives it another initial
RAM disk, and says how long QEMU took. Rounds take turns, and the least counts: other load can only add.
No cluster is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from snf_lab import demo
from snf_lab.guest_image import GuestImage
from snf_lab.guest_recipe import GuestRecipe
from snf_lab.lab import Lab
from snf_lab.progress import render_table
from snf_lab.state import TREE
from synnefo_light.errors import PeerError, ToolError
from synnefo_light.run import Runner, run

MIB = 1 << 20
DISK_SIZE = 4 << 30
LIMIT_S = 900.0
PARALLEL = 4
NIC = "mac=aa:00:00:35:2b:01,ip=10.88.0.5,subnet=10.88.0.0/24,gateway=10.88.0.1"

# reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF), for ever.
POWER_OFF = bytes.fromhex("b8a9000000 bfaddee1fe be69191228 badcfe2143 0f05 ebfe")

# The end of process 1 ends the VM: the kernel panics, with panic=-1.
PYTHON_ALONE = b"#!/usr/bin/python3.11 -ISB\nimport os\nos._exit(0)\n"

# Stands in for QEMU. "times" prints what the shell took, then what its children took, as user and system time.
STAND_IN = """#!/bin/sh
started=$(date +%s%N)
qemu-system-x86_64 "$@"{more}
code=$?
{{ echo $((($(date +%s%N) - started) / 1000000)) $code; times; }} >{folder}/$$.times
exit $code
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qemu:
    """What the stand-in saw of one QEMU: seconds."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """One deployment as its journal has it. Milliseconds, and bytes."""

    boot_ms: int
    helper_ms: int
    tasks: Mapping[str, int]
    host_peak_rss: int
    accel: str
    wall_s: float  # the command, with the copy
    qemu: Qemu


def power_off_program() -> bytes:
    """A 64-bit ELF file of one segment (elf(5)): the kernel's way to its first program and nothing else."""
    base, start = 0x400000, 120
    length = start + len(POWER_OFF)
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, length, length, 4096)
    return head + segment + POWER_OFF


def newc(init: bytes) -> bytes:
    """An initial RAM disk with one program: an archive of cpio's format "newc". Behind another one it replaces its."""
    out = bytearray()
    for name, mode, data in (("dev", 0o040755, b""), ("init", 0o100755, init), ("TRAILER!!!", 0, b"")):
        fields = (len(out) + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def parse_times(text: str) -> Qemu:
    """What a stand-in wrote. Raises PeerError when QEMU did not end well."""
    first, _, children = text.splitlines()[:3]
    wall_ms, code = first.split()
    if code != "0":
        raise PeerError(f"QEMU ended with {code}, so its time counts for nothing")
    spent = [word.rstrip("s").split("m") for word in children.split()]
    return Qemu(wall_s=int(wall_ms) / 1000, cpu_s=round(sum(60 * int(m) + float(s) for m, s in spent), 2))


def parse_journal(text: str, *, wall_s: float, qemu: Qemu) -> Deployed:
    """Raises PeerError when the deployment did not finish."""
    records = [json.loads(line) for line in text.splitlines()]
    tasks = {str(r["task"]): int(r["task_ms"]) for r in records if r.get("type") == "task-done"}
    last = next((r for r in records if r.get("type") == "finished"), None)
    if last is None:
        raise PeerError("the deployment's journal tells of no end")
    return Deployed(
        boot_ms=int(last["helper_boot_ms"]),
        helper_ms=int(last["helper_ms"]),
        tasks=tasks,
        host_peak_rss=int(last["host_peak_rss"]),
        accel=str(last["accel"]),
        wall_s=wall_s,
        qemu=qemu,
    )


class Bench:
    """A node in a folder; `parameters` are those of every deployment."""

    def __init__(
        self, folder: Path, image: GuestImage, *, helper: Path, parameters: Mapping[str, str], runner: Runner = run
    ) -> None:
        self._folder, self._image, self._helper, self._runner = folder, image, helper, runner
        self._parameters = {"img_id": image.path.name, "img_format": "diskdump", **parameters}
        folder.chmod(0o755)
        (folder / "bare.img").write_bytes(newc(power_off_program()))
        (folder / "python.img").write_bytes((helper / "initrd.img").read_bytes() + newc(PYTHON_ALONE))

    def deploy(self, name: str = "bench") -> Deployed:
        """One deployment on a fresh disk. Raises ToolError, PeerError."""
        place = self._place(name, more="")
        wall_s = self._run(name, place)
        (journal,) = (place / "run").glob("*.jsonl")
        # The first VM of a node is a selftest, which finds the accelerator out; ours is the one that ended last.
        times = sorted((place / "times").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return parse_journal(journal.read_text(), wall_s=wall_s, qemu=parse_times(times[-1].read_text()))

    def bare(self, accel: str, *, initrd: str = "bare.img") -> Qemu:
        """The kernel alone, or with Python. The deployment fails, because nothing says hello."""
        place = self._place("bare", more=f" -initrd {self._folder / initrd}", accel=accel)
        with contextlib.suppress(ToolError):
            self._run("bare", place)
            raise PeerError("a VM that does nothing was taken for a deployment")
        (times,) = (place / "times").iterdir()
        return parse_times(times.read_text())

    def together(self, count: int) -> float:
        """Seconds of the clock until `count` deployments at the same time have all ended."""
        places = {f"bench{n}": self._place(f"bench{n}", more="", accel="tcg") for n in range(count)}
        started = time.monotonic()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda item: self._run(*item), places.items()))
        return time.monotonic() - started

    def _place(self, name: str, *, more: str, accel: str = "auto") -> Path:
        """A fresh configuration and disk."""
        place = self._folder / name
        self._runner(["rm", "-rf", place], timeout_s=LIMIT_S)
        for folder in ("run", "log", "spool", "variants", "times"):
            (place / folder).mkdir(parents=True)
        (place / "times").chmod(0o777)
        stand_in = place / "qemu"
        stand_in.write_text(STAND_IN.format(more=more, folder=place / "times"))
        stand_in.chmod(0o755)
        settings = {"image_dir": self._image.path.parent, "helper_dir": self._helper, "qemu": stand_in}
        settings |= {f"{key}_dir": place / key for key in ("run", "log", "variants")} | {"spool": place / "spool"}
        lines = [f"{key} = {json.dumps(str(value))}\n" for key, value in settings.items()]
        (place / "snf-image.toml").write_text("".join(lines) + f'user = "nobody"\naccel = "{accel}"\n')
        with open(place / "disk", "wb") as disk:
            disk.truncate(DISK_SIZE)
        return place

    def _run(self, name: str, place: Path) -> float:
        given = [word for key, value in self._parameters.items() for word in ("-O", f"{key}={value}")]
        command: list[str | Path] = [
            TREE / "snf-image-host/snf-image",
            "run",
            "--disk",
            place / "disk",
            "--hostname",
            name,
            "--nic",
            NIC,
        ]
        started = time.monotonic()
        self._runner([*command, *given], timeout_s=LIMIT_S, env={"SNF_IMAGE_CONFIG": str(place / "snf-image.toml")})
        return time.monotonic() - started


def run_bench(lab: Lab, *, release: str, rounds: int, peers: bool) -> Mapping[str, object]:
    """The time line. `release` and `peers` are for benchmarks that have a node or a peer."""
    image = demo.ensure_image(lab, GuestRecipe())
    with tempfile.TemporaryDirectory(prefix="snf-bench-", dir=lab.state.images) as name:
        bench = Bench(Path(name), image, helper=lab.helper_image(), parameters={"img_passwd": "bench-password"})
        figures = measure(bench, lab, rounds=rounds)
    figures["load_1min"] = round(os.getloadavg()[0], 2)
    return figures


def measure(bench: Bench, lab: Lab, *, rounds: int) -> dict[str, object]:
    """Alone and together, in turns."""
    alone: list[Deployed] = []
    bare: list[Qemu] = []
    python: list[Qemu] = []
    four: list[float] = []
    for number in range(1, rounds + 1):
        with lab.progress.step(f"round {number}: one deployment, the bare kernel, {PARALLEL} deployments at once"):
            alone.append(bench.deploy())
            bare.append(bench.bare(alone[0].accel))
            python.append(bench.bare(alone[0].accel, initrd="python.img"))
            four.append(bench.together(PARALLEL))
    found = summarise(alone, bare, python, four)
    lab.progress.say()
    lab.progress.say(render_table(timeline_table(found)))
    return found


def summarise(
    alone: Sequence[Deployed], bare: Sequence[Qemu], python: Sequence[Qemu], four: Sequence[float]
) -> dict[str, object]:
    """The least of each; the time line is that of the quickest deployment, and its parts add up to it."""
    best = min(alone, key=lambda d: d.helper_ms)
    bare_s, python_s = min(b.wall_s for b in bare), min(p.wall_s for p in python)
    boot_s, helper_s = min(d.boot_ms for d in alone) / 1000, best.helper_ms / 1000
    parts = {"QEMU and kernel": bare_s, "Python": round(python_s - bare_s, 3)}
    parts["init"] = round(best.boot_ms / 1000 - python_s, 3)
    parts |= {name: ms / 1000 for name, ms in best.tasks.items()}
    single_s, parallel_s = min(d.wall_s for d in alone), min(four)
    return {
        "helper_s": helper_s,
        "helper_cpu_s": min(d.qemu.cpu_s for d in alone),
        "boot_s": boot_s,
        "bare_s": bare_s,
        "bare_cpu_s": min(b.cpu_s for b in bare),
        "python_s": python_s,
        "python_cpu_s": min(p.cpu_s for p in python),
        "boot_ratio": round(python_s / bare_s, 2),
        "hello_ratio": round(boot_s / bare_s, 2),
        "timeline": {**parts, "rest": round(helper_s - sum(parts.values()), 3)},
        "single_s": round(single_s, 2),
        "parallel4_s": round(parallel_s, 2),
        "parallel4_ideal_s": round(single_s * PARALLEL / min(PARALLEL, os.cpu_count() or 1), 2),
        "host_peak_rss_MiB": round(max(d.host_peak_rss for d in alone) / MIB, 1),
        "accel": best.accel,
        "rounds": len(alone),
    }


def timeline_table(figures: Mapping[str, object]) -> Sequence[tuple[str, ...]]:
    parts = figures["timeline"]
    assert isinstance(parts, dict)
    return [("helper VM", "seconds"), *((name, f"{spent:.3f}") for name, spent in parts.items())]
