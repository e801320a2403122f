"""A converter that is at work when `snf-store image add` is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from snf_extstorage.arrivals import Wanted, arrived
from snf_extstorage.settings import Settings
from snf_extstorage.volume import NoSpace

ADD = """
import sys
from pathlib import Path
from snf_extstorage.arrivals import Wanted, arrived
from snf_extstorage.settings import Settings
with arrived(Wanted(source="x.qcow2"), Settings(folder=Path(sys.argv[1]), reserve_percent=0, snf_image=sys.argv[2])):
    pass
"""
#: Opens the output, as snf-image does, and takes its time.
CONVERTER = """#!/bin/sh
for output; do :; done
exec 9>"$output"
echo $$ > "$0.new" && mv "$0.new" "$0.pid"
exec sleep 100
"""


def until(true: Callable[[], bool], *, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


#: Writes for ever, slowly.
WRITER = """#!/bin/sh
for output; do :; done
exec 9>>"$output"
while :; do head -c 4194304 /dev/zero >&9; sleep 0.05; done
"""


def test_a_converter_is_ended_when_others_fill_the_disk_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, converter = tmp_path / "volumes", tmp_path / "snf-image"
    folder.mkdir()
    converter.write_text(WRITER)
    converter.chmod(0o755)
    free = iter([50, 50, 20, 4])
    found = os.statvfs(folder)

    def statvfs(_: Path) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 1 << 30, 1 << 30, next(free) * (1 << 30) // 100, *found[5:]))

    monkeypatch.setattr(os, "statvfs", statvfs)
    given = Settings(folder=folder, snf_image=str(converter))
    sentence = "there is not enough room: .*volumes has 164 GiB of 4 TiB free, and 205 GiB are reserved"
    with pytest.raises(NoSpace, match=sentence), arrived(Wanted(source="x.qcow2"), given):
        pytest.fail("it arrived")
    assert next(free, None) is None
    assert os.listdir(folder) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_neither_the_converter_nor_its_file_outlives_us(tmp_path: Path, number: signal.Signals) -> None:
    folder, converter, note = tmp_path / "volumes", tmp_path / "snf-image", tmp_path / "snf-image.pid"
    folder.mkdir()
    converter.write_text(CONVERTER)
    converter.chmod(0o755)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", ADD, str(folder), str(converter)], env=env) as adding:
        assert until(note.exists, limit_s=20)
        pid = int(note.read_text())
        output = Path(f"/proc/{pid}/fd/9")
        held = str(output.readlink())
        assert held.startswith(f"{folder}/") and held.endswith(" (deleted)")
        adding.send_signal(number)
        assert adding.wait(10) == -number
    # Without its last descriptor a file that has no name is freed.
    assert until(lambda: not output.is_symlink(), limit_s=5)
