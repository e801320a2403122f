"""The time line of the helper VM: what its parts are made of."""

from __future__ import annotations

import json
import struct

import pytest
from snf_lab.bench_helper import Deployed, Qemu, newc, parse_journal, parse_times, power_off_program, summarise

from synnefo_light.errors import PeerError

TIMES = "4210 0\n0m0.010s 0m0.020s\n0m3.500s 1m0.250s\n"


def test_qemus_time_is_that_of_the_shells_children() -> None:
    assert parse_times(TIMES) == Qemu(wall_s=4.21, cpu_s=63.75)


def test_a_qemu_that_failed_is_not_measured() -> None:
    with pytest.raises(PeerError, match="ended with 137"):
        parse_times(TIMES.replace("4210 0", "4210 137"))


def test_a_deployment_that_did_not_finish_is_not_measured() -> None:
    with pytest.raises(PeerError, match="no end"):
        parse_journal('{"type": "task-done", "task": "mount", "task_ms": 5}\n', wall_s=1, qemu=parse_times(TIMES))


def test_the_parts_of_the_time_line_add_up_to_the_whole() -> None:
    lines = [
        {"type": "task-done", "task": "mount", "task_ms": 300},
        {
            **{"type": "finished", "helper_boot_ms": 3000, "helper_ms": 5000, "host_peak_rss": 3 << 20},
            "accel": "tcg",
        },
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    quick = parse_journal(text, wall_s=7.0, qemu=parse_times(TIMES))
    slow = Deployed(
        boot_ms=2900, helper_ms=9000, tasks={}, host_peak_rss=1, accel="tcg", wall_s=6.5, qemu=Qemu(wall_s=9, cpu_s=5)
    )
    found = summarise([slow, quick], [Qemu(wall_s=2.0, cpu_s=1.9)], [Qemu(wall_s=2.5, cpu_s=2.2)], [13.0])
    line = found["timeline"]
    assert line == {"QEMU and kernel": 2.0, "Python": 0.5, "init": 0.5, "mount": 0.3, "rest": 1.7}
    assert isinstance(line, dict) and sum(line.values()) == pytest.approx(found["helper_s"]) == 5.0
    assert (found["boot_ratio"], found["hello_ratio"]) == (1.25, 1.45)
    assert (found["single_s"], found["parallel4_s"]) == (6.5, 13.0)


def test_the_bare_kernels_disk_holds_one_program() -> None:
    archive = newc(power_off_program())
    assert archive.count(b"070701") == 3 and len(archive) % 4 == 0
    elf = archive[archive.index(b"\x7fELF") :]
    entry, address = struct.unpack_from("<Q", elf, 24)[0], struct.unpack_from("<Q", elf, 64 + 16)[0]
    code = elf[entry - address :]
    assert code.startswith(b"\xb8\xa9\0\0\0"), "mov eax, 169: reboot(2)"
    assert struct.pack("<I", 0x4321FEDC) in code[:25], "LINUX_REBOOT_CMD_POWER_OFF"
