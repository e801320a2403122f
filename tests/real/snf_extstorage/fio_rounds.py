"""A volume that fio writes while it is snapshot, cloned, grown and committed, by processes of which half are killed.

    python3 -m tests.real.snf_extstorage.fio_rounds [--count ROUNDS] [--acts N]

fio writes each block once, with its own checksum in it, and remembers which writes were acknowledged. Afterwards it
reads these back through the same device and through a new one, and every snapshot must have whole blocks of the final
content or of what was there before, and no fewer than the snapshot before it. Each line is one round; the last is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from snf_extstorage.directory.place import init_place

from synnefo_light.units import MIB
from tests.real.snf_extstorage.machine import until
from tests.real.snf_extstorage.places import SCRIPTS, Site, mounted_xfs
from tests.real.snf_extstorage.test_scripts import COMMAND, snf_store

SIZE = 64 * MIB
BLOCK = 4096
#: Of fewer writes than twice this, fio 3.33 takes more for acknowledged than there were.
DEPTH = 16
MAGIC = (0xACCA).to_bytes(2, "little")
_INSTANCE = "fio"
_UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"


class Round:
    """One volume, from its creation from an image to its last check. Faults are sentences."""

    def __init__(self, site: Site, folder: Path, *, acts: int, seed: int) -> None:
        self._site = site
        self._folder = folder
        self._acts = acts
        self._chance = random.Random(seed)
        self._volume = f"{uuid4()}.ext.disk0"
        self._mib = SIZE // MIB
        self._snapshots: list[str] = []
        self._clones: list[str] = []
        self.faults: list[str] = []
        self.killed = 0

    def work(self) -> str:
        """The device, attached still."""
        before = self.begin()
        device = self.attach()
        with self.writing(device):
            for _ in range(self._acts):
                self._chance.choice([self._snapshot, self._snapshot, self._clone, self._grow, self._commit, self._gc])()
        self.verify(device, "the device that was written")
        self._script("detach", self._volume)
        device = self.attach()
        self.verify(device, "a new device")
        self._check_snapshots(before)
        return device

    def end(self) -> None:
        self._script("detach", self._volume)
        for name in (*self._clones, self._volume):
            self._script("remove", name)
        self._store("gc", "--do")
        found = snf_store(self._site, "fsck", "--mend")
        if found.returncode not in (0, 1):
            self.faults.append(f"fsck: {found.stdout.decode()}")

    def begin(self) -> bytes:
        content = os.urandom(8 * MIB)  # what the first blocks are before they are written
        image = self._folder / "image.raw"
        image.write_bytes(content)
        self._store("image", "add", f"image-{self._volume}", str(image))
        self._script("create", self._volume, VOL_SIZE=str(self._mib), EXTP_ORIGIN=f"image-{self._volume}")
        self._script("setinfo", self._volume, VOL_METADATA=f"originstname+{_INSTANCE}")
        self._script("open", self._volume, VOL_OPEN_EXCLUSIVE="True")
        return content + bytes(SIZE - len(content))

    def attach(self) -> str:
        device = self._script("attach", self._volume).split("\n")[0]
        self._script("open", self._volume, VOL_OPEN_EXCLUSIVE="True")
        return device

    # --- fio

    def _fio(self, device: str, *more: str) -> list[str]:
        words = ["fio", "--name=w", f"--filename={device}", f"--bs={BLOCK}", "--ioengine=libaio", f"--iodepth={DEPTH}"]
        words += ["--direct=1", f"--size={SIZE}", "--rw=randwrite", "--verify=crc32c", f"--aux-path={self._folder}"]
        return [*words, *more]

    @contextlib.contextmanager
    def writing(self, device: str) -> Iterator[None]:
        rate = round(SIZE / BLOCK / self._acts)  # an act takes about a second
        words = self._fio(device, "--do_verify=0", "--verify_state_save=1", f"--rate_iops={rate}")
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as writer:
            try:
                until(lambda: len(self.written(device)) >= 4 * DEPTH or writer.poll() is not None)
                yield
            finally:
                writer.send_signal(signal.SIGINT)
                said, _ = writer.communicate(timeout=60)
        issued = re.search(r"issued rwts: total=0,(\d+),", said)
        if "err= 0" not in said or issued is None:
            self.faults.append(f"fio could not write: {said[:2000]}")
        elif int(issued[1]) != (found := len(self.written(device))):
            self.faults.append(f"fio made {issued[1]} writes, and {found} are on the device")

    def written(self, device: str) -> list[int]:
        """Where there are blocks of fio's."""
        with open(device, "rb", buffering=0) as file:
            fd = file.fileno()
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what was read before it was written
            return [at for at in range(0, SIZE, BLOCK) if os.pread(fd, len(MAGIC), at) == MAGIC]

    def verify(self, device: str, what: str) -> None:
        words = self._fio(
            device, "--verify_only=1", "--verify_state_load=1", "--verify_state_save=0", "--output-format=json"
        )
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        text = done.stdout[done.stdout.find("{") :]
        total = json.loads(text)["jobs"][0]["read"]["total_ios"] if done.returncode == 0 else 0
        if total == 0:
            self.faults.append(f"fio read back {what}: {done.returncode} {done.stdout[:1000]} {done.stderr[:1000]}")

    # --- what happens meanwhile

    def _snapshot(self) -> None:
        name = f"s-{uuid4()}"
        self._maybe_killed(str(COMMAND), "snapshot", "--no-commit", _INSTANCE + "/" + self._volume, name)
        if f'"{name}"' in self._store("image", "list", "--json"):
            self._snapshots.append(name)

    def _clone(self) -> None:
        if self._snapshots:
            name = f"{uuid4()}.ext.disk0"
            more = {"VOL_SIZE": str(self._mib), "EXTP_ORIGIN": self._chance.choice(self._snapshots)}
            self._maybe_killed_script("create", name, **more)
            self._clones.append(name)

    def _grow(self) -> None:
        more = {"VOL_SIZE": str(self._mib), "VOL_NEW_SIZE": str(self._mib + 1)}
        self._mib += 1
        self._maybe_killed_script("grow", self._volume, **more)

    def _commit(self) -> None:
        if self._snapshots:
            self._maybe_killed(str(COMMAND), "commit", self._snapshots[-1])

    def _gc(self) -> None:
        self._maybe_killed(str(COMMAND), "gc", "--do")

    def _maybe_killed_script(self, script: str, volume: str, **more: str) -> None:
        """Ganeti would call it again, so it is."""
        env = self._site.script_env(volume, VOL_UUID=_UUID, **more)
        self._maybe_killed(str(SCRIPTS / script), env=env)
        self._script(script, volume, **more)

    def _maybe_killed(self, *words: str, env: dict[str, str] | None = None) -> None:
        """Killed at some time in half of all cases, with all that it started in its session."""
        env = env or {"SNF_STORE_CONFIG": str(self._site.config())}
        with subprocess.Popen(
            words, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            if self._chance.random() < 0.5:
                time.sleep(self._chance.uniform(0.02, 0.5))
                self.killed += process.poll() is None
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            _, said = process.communicate(timeout=120)
        if process.returncode not in (0, -signal.SIGKILL):
            self.faults.append(f"{' '.join(words)} exited with {process.returncode}: {said.decode()}")

    # --- afterwards

    def _check_snapshots(self, before: bytes) -> None:
        """Read as clones of them, by devices."""
        final = (self._site.place.disk("volumes", self._volume)).read_bytes()
        written: set[int] = set()
        for name in self._snapshots:
            clone = f"{uuid4()}.ext.disk0"
            self._script("create", clone, VOL_SIZE=str(self._mib), EXTP_ORIGIN=name)
            self._clones.append(clone)
            content = self._site.place.disk("volumes", clone).read_bytes()
            now = set()
            for at in range(0, SIZE, BLOCK):
                block = content[at : at + BLOCK]
                if block == final[at : at + BLOCK] != before[at : at + BLOCK]:
                    now.add(at)
                elif block != before[at : at + BLOCK]:
                    self.faults.append(f"{name} has at {at} neither what was there before nor what was written")
            if not written <= now:
                self.faults.append(f"{name} lacks {len(written - now)} blocks that the snapshot before it has")
            written = now

    def _script(self, name: str, volume: str, **more: str) -> str:
        done = self._site.script(name, volume, **{"VOL_UUID": _UUID, **more})
        if done.returncode != 0:
            self.faults.append(f"{name} {volume} exited with {done.returncode}: {done.stderr}")
        return done.stdout

    def _store(self, *words: str) -> str:
        done = snf_store(self._site, *words)
        if done.returncode != 0:
            self.faults.append(f"snf-store {' '.join(words)} exited with {done.returncode}: {done.stderr.decode()}")
        return done.stdout.decode()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="fio_rounds", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="rounds (20)")
    parser.add_argument("--acts", type=int, default=40, help="of each round (40)")
    parser.add_argument("--jobs", type=int, default=1, help="ignored: one round at a time")
    arguments = parser.parse_args(words)
    begun, passed = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder, mounted_xfs(Path(folder), size=4 << 30) as mount:
        for number in range(arguments.count):
            site = Site(place=init_place(mount / str(number)), hints=Path(folder) / "run" / str(number))
            snf_store(site, "init")
            one = Round(site, Path(folder), acts=arguments.acts, seed=number)
            one.work()
            one.end()
            passed += not one.faults
            said = "FAILED" if one.faults else "passed"
            print(f"{said} storage-fio-{number}: {one.killed} processes of {arguments.acts} killed", flush=True)
            for fault in one.faults[:20]:
                print(f"    {fault[:1000]}", flush=True)
            subprocess.run(["rm", "-rf", site.place.root], check=True, timeout=600)
    figures = {"attacks_passed": passed, "attacks_total": arguments.count, "seconds": round(time.monotonic() - begun)}
    print(json.dumps(figures))
    return 0 if passed == arguments.count else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
