"""A node in a folder: configuration, images, run, log and spool folders, and a QEMU that may be the fake one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from snf_image_host.journal import Record, decode

from synnefo_light import __version__, events
from synnefo_light.records import plain
from tests.deployments import TREE, Outcome, environment
from tests.task_list import NAMES, ORDER

FAKE = Path(__file__).with_name("fake_qemu.py")
COMMAND = TREE / "snf-image-host" / "snf-image"
SCRIPTS = TREE / "snf-image-host" / "os"
PARAMETERS = {"img_id": "small.raw", "img_format": "diskdump"}

#: Where an image of the helper VM may be; SNF_HELPER_IMAGE names another folder.
NAMED = os.environ.get("SNF_HELPER_IMAGE", "/nonexistent")
HELPERS = (Path(NAMED), Path("/usr/lib/snf-image-helper"), TREE / "build" / "helper")


def real_helper() -> Path | None:
    return next((folder for folder in HELPERS if (folder / "helper.json").exists()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fake:
    """The scripts of the tree on a node of its own."""

    folder: Path

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def configure(self, **keys: object) -> None:
        """Write the configuration: this node's folders, and `keys` (a None takes a key out)."""
        folders = {"image_dir": "images", "helper_dir": "helper", "run_dir": "run", "log_dir": "log"}
        folders |= {"staging_dir": "staging", "spool": "spool", "variants_dir": "variants", "snf_store": "snf-store"}
        settings: dict[str, object] = {key: str(self.folder / name) for key, name in folders.items()}
        settings |= {"qemu": str(self.folder / "qemu"), "accel": "tcg", "tcg_limit_s": 20, "user": "nobody"} | keys
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items() if value is not None]
        (self.folder / "snf-image.toml").write_text("".join(lines))

    def behave(self, behaviour: str) -> None:
        """What the fake QEMU does from now on."""
        text = FAKE.read_text().replace('BEHAVIOUR = "good"', f"BEHAVIOUR = {behaviour!r}")
        text = text.replace('VERSION = "0.1.0"', f"VERSION = {__version__!r}")
        text = text.replace('TASKS = ["hostname"]', f"TASKS = {list(NAMES)!r}")
        qemu = self.folder / "qemu"
        qemu.write_text(text)
        qemu.chmod(0o755)

    def disk(self, size_mib: int = 16, *, pattern: bytes | None = None, name: str = "disk") -> Path:
        path = self.folder / name
        with open(path, "wb") as file:
            if pattern is not None:
                block = (pattern * (1 << 20))[: 1 << 20]
                for _ in range(size_mib):
                    file.write(block)
            file.truncate(size_mib << 20)
        return path

    def image(self, name: str = "small.raw", *, size_mib: int = 8) -> Path:
        """An image with data at its begin, middle and end, and holes between."""
        path = self.images / name
        with open(path, "wb") as file:
            for at in (0, size_mib << 19, (size_mib << 20) - 65536):
                file.seek(at)
                file.write(os.urandom(65536))
        return path

    def environment(self, script: str, disk: Path, *, instance: str = "web1", **given: str) -> dict[str, str]:
        """Ganeti's environment; `given` are OS parameters ("-" takes one out), or variables, in upper case."""
        asked = {k: v for k, v in {**PARAMETERS, **given}.items() if v != "-" and k.islower()}
        more = {k: v for k, v in given.items() if k.isupper()}
        env = environment(script, instance=instance, disk=disk, parameters=asked, **more)
        return env | {"SNF_IMAGE_CONFIG": str(self.folder / "snf-image.toml")}

    def start(self, script: str, env: dict[str, str], **more: object) -> subprocess.Popen[bytes]:
        words = [str(SCRIPTS / script), *(["parameters"] if script == "verify" else [])]
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | more
        return subprocess.Popen(words, env=env, cwd=SCRIPTS, umask=0o077, **given)  # type: ignore[call-overload,no-any-return]

    def call(self, script: str, disk: Path, *, instance: str = "web1", **given: str) -> Outcome:
        process = self.start(script, self.environment(script, disk, instance=instance, **given))
        out, _ = process.communicate(timeout=200)
        return Outcome(returncode=process.returncode, output=out.decode("utf-8", "replace"))

    def create(self, disk: Path, **parameters: str) -> Outcome:
        return self.call("create", disk, **parameters)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        env = {"SNF_IMAGE_CONFIG": str(self.folder / "snf-image.toml"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        return subprocess.run([COMMAND, *words], env=env, capture_output=True, text=True, timeout=60, check=False)

    def records(self, instance: str = "web1") -> list[Record]:
        path = self.folder / "run" / f"{instance}.jsonl"
        return [decode(line).record for line in path.read_bytes().splitlines()]

    def events(self) -> list[events.Event]:
        return [events.from_json(path.read_bytes()) for path in events.pending(self.folder / "spool")]

    def log(self, instance: str = "web1") -> str:
        return (self.folder / "log" / f"{instance}.log").read_text()

    def alive(self) -> list[str]:
        """Processes whose command line names this node's QEMU."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                except OSError:
                    continue
                if str(self.folder / "qemu") in line or f"{self.folder}/helper/vmlinux" in line:
                    found.append(f"{entry.name} {line[:80]}")
        return found

    def wait_dead(self, timeout_s: float = 5) -> None:
        deadline = time.monotonic() + timeout_s
        while self.alive():
            assert time.monotonic() < deadline, self.alive()
            time.sleep(0.02)


@contextmanager
def fake_node(*, helper: Path | None = None) -> Iterator[Fake]:
    """A node below /tmp that everybody may read, as the unprivileged user must."""
    folder = Path(tempfile.mkdtemp(prefix="snf-node-"))
    folder.chmod(0o755)
    node = Fake(folder=folder)
    try:
        for name in ("images", "run", "spool", "variants", *([] if helper else ["helper"])):
            (folder / name).mkdir(mode=0o755)
        if helper:
            (folder / "helper").symlink_to(helper)
        else:
            _helper_image(folder / "helper")
        node.configure(**({"qemu": None, "tcg_limit_s": 120} if helper else {}))
        node.behave("good")
        yield node
    finally:
        for line in node.alive():
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        shutil.rmtree(folder)


def _helper_image(folder: Path) -> None:
    files = {}
    for name in ("vmlinux", "initrd.img", "root.squashfs"):
        (folder / name).write_bytes(name.encode() * 100)
        files[name] = {"size": len(name) * 100, "sha256": "0" * 64}
    tasks = [plain(task) for task in ORDER]
    described = {"version": __version__, "files": files, "packages": {}, "tasks": tasks}
    (folder / "helper.json").write_text(json.dumps(described))
