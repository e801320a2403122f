"""What belongs to a lab is found by where it is: cgroups, mounts, loop devices, processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from snf_lab import cgroups, mounts, processes

from synnefo_light.errors import EnvironmentFault

HYBRID = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

LAB_MOUNTS = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
50 21 0:4 net:[4026532281] /lab/run/netns/switch rw - nsfs nsfs rw
51 21 0:44 / /lab/run/nodes/1/root rw,relatime - overlay overlay rw,lowerdir=/lab/cache/roots/bookworm-1
52 51 0:45 / /lab/run/nodes/1/root/with\\040blank rw - tmpfs tmpfs rw
53 21 0:46 / /lab/running-elsewhere rw - tmpfs tmpfs rw
"""


def test_all_hierarchies_of_a_hybrid_host_are_used() -> None:
    found = cgroups.parse_hierarchies(HYBRID)
    assert [str(h.parent) for h in found] == [f"/sys/fs/cgroup/{n}" for n in ("cpuset", "memory", "systemd", "unified")]
    assert [h.cpuset for h in found] == [True, False, False, False]


def test_a_v2_host_has_one_hierarchy() -> None:
    assert cgroups.parse_hierarchies(V2) == (cgroups.Hierarchy(parent=Path("/sys/fs/cgroup")),)


def test_a_new_cpuset_gets_what_its_parent_has(tmp_path: Path) -> None:
    for file in ("cpuset.cpus", "cpuset.mems"):
        (tmp_path / file).write_text("0-1\n")
    made = cgroups.make([cgroups.Hierarchy(parent=tmp_path, cpuset=True)], "snf-lab/node1")
    assert made == [tmp_path / "snf-lab" / "node1"]
    assert (made[0] / "cpuset.cpus").read_text() == "0-1\n"
    assert cgroups.make([cgroups.Hierarchy(parent=tmp_path, cpuset=True)], "snf-lab/node1") == made


def test_the_processes_of_a_cgroup_are_those_below_it_too(tmp_path: Path) -> None:
    deep = tmp_path / "payload" / "system.slice"
    deep.mkdir(parents=True)
    (tmp_path / "cgroup.procs").write_text("10\n")
    (deep / "cgroup.procs").write_text("11\n12\n")
    assert cgroups.pids([tmp_path, tmp_path / "absent"]) == {10, 11, 12}


def test_mounts_go_in_the_reverse_order_of_their_coming() -> None:
    planned = mounts.plan_unmounts(mounts.parse_mountinfo(LAB_MOUNTS), Path("/lab/run"))
    assert [str(p) for p in planned] == [
        "/lab/run/nodes/1/root/with blank",
        "/lab/run/nodes/1/root",
        "/lab/run/netns/switch",
    ]


def loop(name: str, file: str, device: tuple[int, int] = (254, 0), inode: int = 1) -> mounts.Loop:
    return mounts.Loop(device=Path("/dev") / name, file=file, file_device=device, file_inode=inode)


def test_loop_devices_of_the_host_are_left_alone() -> None:
    host = loop("loop0", "/srv/ganeti/disk", inode=7)
    assert mounts.plan_loops([host], below=Path("/lab/run"), devices={(0, 44)}, inodes={((254, 0), 8)}) == ()


def test_loop_devices_are_the_labs_by_folder_by_overlay_and_by_file() -> None:
    below = loop("loop1", "/lab/run/shared/disk")
    inside = loop("loop2", "/srv/ganeti/disk (deleted)", device=(0, 44))
    shared = loop("loop3", "/srv/ganeti/shared-file-storage/disk", inode=8)
    planned = mounts.plan_loops(
        [below, inside, shared], below=Path("/lab/run"), devices={(0, 44)}, inodes={((254, 0), 8)}
    )
    assert [p.name for p in planned] == ["loop1", "loop2", "loop3"]


def test_losetups_json_is_read_and_its_silence_too() -> None:
    text = '{"loopdevices": [{"name":"/dev/loop0","back-file":"/a b","back-maj:min":"0:57","back-ino":12}]}'
    assert mounts.parse_loops(text) == (loop("loop0", "/a b", device=(0, 57), inode=12),)
    assert mounts.parse_loops("") == ()


STATUS = "Name:\tsystemd\nUmask:\t0000\nPid:\t4711\nNSpid:\t4711\t1\n"


def test_a_node_is_found_by_its_network_namespace() -> None:
    name, pids = processes.parse_status(STATUS)
    first = processes.Process(pid=4711, name=name, namespace_pids=pids, netns=(4, 100))
    supervisor = processes.Process(pid=4700, name="systemd-nspawn", namespace_pids=(4700,), netns=(4, 100))
    deeper = processes.Process(pid=4800, name="init", namespace_pids=(4800, 90, 1), netns=(4, 100))
    assert processes.find_first([supervisor, deeper, first], (4, 100)) == 4711
    assert processes.find_first([supervisor, deeper, first], (4, 101)) is None


def test_killing_goes_on_until_nobody_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = [{5}, {6}, set[int]()]
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(pid))
    processes.kill_all(lambda: alive.pop(0))
    assert killed == [5, 6]


def test_killing_in_vain_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.kill", lambda pid, number: None)
    with pytest.raises(EnvironmentFault, match=r"\[5\]"):
        processes.kill_all(lambda: {5}, timeout_s=0.1)
