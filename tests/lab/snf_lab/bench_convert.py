"""How fast the helper VM converts a qcow2, beside `qemu-img convert` on the host, of the same image in the same run.

No cluster is needed: the OS definition's `create` is called on a disk that is a file, as a node of its own in a folder.
What counts is the time of the task `convert`, which checks the image, writes it and sees it on the disk; the start of
the VM is measured by another benchmark. MB are 10^6 bytes of the disk's data; holes do not count, nobody writes them.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snf_lab.state import TREE
from synnefo_light.errors import PeerError
from synnefo_light.run import Runner, run

CREATE = TREE / "snf-image-host/os/create"
MIB = 1 << 20
DATA_MIB, HOLES_MIB = 128, 128
STRETCH_MIB = 8
WORDS = 4000  # of six bytes each: what deflate makes a bit more than half of
LIMIT_S = 900.0
#: The two ways in which cloud images are published: -c is what most are.
KINDS: Mapping[str, tuple[str, ...]] = {"plain": (), "compressed": ("-c",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One round of one kind: seconds."""

    helper_s: float
    host_s: float
    vm_s: float  # the whole of the VM, with its start and end


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A node in a folder, with the image and the disks of one round."""

    folder: Path
    helper: Path
    runner: Runner = run

    def make_image(self, kind: str) -> Path:
        raw, image = self.folder / "raw", self.folder / "images" / f"{kind}.qcow2"
        if not raw.exists():
            write_data(raw)
        words = ["qemu-img", "convert", *KINDS[kind], "-f", "raw", "-O", "qcow2", str(raw), str(image)]
        self.runner(words, timeout_s=LIMIT_S)
        return image

    def configure(self) -> None:
        for name in ("images", "run", "spool", "variants", "staging", "log"):
            (self.folder / name).mkdir()
        folders = {"image_dir": "images", "run_dir": "run", "log_dir": "log", "spool": "spool"}
        folders |= {"variants_dir": "variants", "staging_dir": "staging"}
        settings = {key: str(self.folder / name) for key, name in folders.items()} | {"helper_dir": str(self.helper)}
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
        (self.folder / "snf-image.toml").write_text("".join(lines))

    def measure(self, image: Path) -> Sample:
        """One conversion on each side, onto fresh disks. Raises PeerError when the two differ."""
        ours, theirs = self._disk("ours"), self._disk("theirs")
        env = {"SNF_IMAGE_CONFIG": str(self.folder / "snf-image.toml"), **render_environment(image.name, ours)}
        self.runner([CREATE], env=env, timeout_s=LIMIT_S)
        convert_ms, vm_ms = parse_journal((self.folder / "run" / "bench.jsonl").read_text())
        words = ["qemu-img", "convert", "-n", "--target-is-zero", "-f", "qcow2", "-O", "raw", str(image), str(theirs)]
        started = time.monotonic()
        self.runner(words, timeout_s=LIMIT_S)
        host_s = time.monotonic() - started
        self.runner(["cmp", ours, theirs], timeout_s=LIMIT_S)
        return Sample(helper_s=convert_ms / 1000, host_s=host_s, vm_s=vm_ms / 1000)

    def _disk(self, name: str) -> Path:
        path = self.folder / name
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate((DATA_MIB + HOLES_MIB) * MIB)
        return path


def render_environment(image: str, disk: Path) -> dict[str, str]:
    """What Ganeti sets for `create` of an instance without a network card."""
    return {
        "OS_API_VERSION": "20",
        "OS_NAME": "snf-image",
        "OS_VARIANT": "default",
        "HYPERVISOR": "kvm",
        "INSTANCE_NAME": "bench",
        "INSTANCE_UUID": "41dffc9d-29e0-44ed-9720-245c6e09a612",
        "INSTANCE_OS": "snf-image+default",
        "DISK_COUNT": "1",
        "DISK_0_PATH": str(disk),
        "DISK_0_ACCESS": "rw",
        "DISK_0_BACKEND_TYPE": "file:loop",
        "NIC_COUNT": "0",
        "OSP_IMG_ID": image,
        "OSP_IMG_FORMAT": "diskdump",
        "OSP_IMG_PROPERTIES": json.dumps({"EXCLUDE_ALL_TASKS": "yes"}),
    }


def write_data(path: Path) -> None:
    """Stretches of data that compresses as programs do, and holes in turn; the same bytes each time."""
    chance = random.Random(1)
    words = [chance.randbytes(6) for _ in range(WORDS)]
    with path.open("wb") as file:
        for _ in range(DATA_MIB // STRETCH_MIB):
            piece = b"".join(chance.choices(words, k=MIB // 6 + 1))[:MIB]
            for n in range(STRETCH_MIB):
                file.write(piece[n * 4096 :] + piece[: n * 4096])
            file.seek(HOLES_MIB // (DATA_MIB // STRETCH_MIB) * MIB, 1)
        file.truncate((DATA_MIB + HOLES_MIB) * MIB)


def parse_journal(text: str) -> tuple[int, int]:
    """Milliseconds of the task `convert` and of the whole VM. Raises PeerError when the journal does not tell."""
    convert_ms = vm_ms = None
    for line in text.splitlines():
        record = json.loads(line)
        if record.get("type") == "task-done" and record.get("task") == "convert":
            convert_ms = record["task_ms"]
        elif record.get("type") == "finished":
            vm_ms = record["helper_ms"]
    if not isinstance(convert_ms, int) or not isinstance(vm_ms, int):
        raise PeerError("the deployment's journal tells of no conversion that ended")
    return convert_ms, vm_ms


def run_convert(*, helper: Path, rounds: int, runner: Runner = run) -> Mapping[str, object]:
    """Measure with the helper's image in the folder `helper`; medians under plain names, all rounds under `samples`.

    `convert_MBps` is of a compressed qcow2, `convert_plain_MBps` of one that is not; `..._host_...` is qemu-img on the
    host, and a ratio is the helper's time by the host's. The sides take turns. Raises ToolError, PeerError.
    """
    samples: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="snf-bench-", dir="/var/tmp") as name:
        bench = Bench(folder=Path(name), helper=helper, runner=runner)
        bench.folder.chmod(0o755)
        bench.configure()
        images = {kind: bench.make_image(kind) for kind in KINDS}
        for _ in range(rounds):
            for kind, image in images.items():
                samples[kind].append(bench.measure(image))
    return figures(samples)


def figures(samples: Mapping[str, list[Sample]]) -> dict[str, object]:
    """The figures of a run, as `./lab bench` prints them."""
    found: dict[str, object] = {}
    for kind, taken in samples.items():
        name = "convert" if kind == "compressed" else f"convert_{kind}"
        helper, host = (
            statistics.median(times) for times in zip(*((s.helper_s, s.host_s) for s in taken), strict=True)
        )
        found[f"{name}_MBps"] = round(DATA_MIB * MIB / 1e6 / helper, 1)
        found[f"{name}_host_MBps"] = round(DATA_MIB * MIB / 1e6 / host, 1)
        found[f"{name}_ratio"] = round(helper / host, 2)
    found["samples"] = {kind: [(s.helper_s, s.host_s, s.vm_s) for s in taken] for kind, taken in samples.items()}
    return found
