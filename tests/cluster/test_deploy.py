"""gnt-instance add, reinstall, rename and remove with images that are sound."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.cluster.instances import Cluster
from tests.deployments import new_disk
from tests.disk_images import check_filesystem, filesystem_blocks, read_back, stat_back


def test_a_deployed_disk_holds_what_was_asked_for(cluster: Cluster, name: str, image: str) -> None:
    added = cluster.add(
        name,
        img_id=image,
        img_passwd="correct, horse",
        auth_keys="ssh-ed25519 AAAATEST key, with comma",
        img_personality='[{"path": "/etc/motd", "contents": "aGk=", "owner": "user", "group": "adm", "mode": 416}]',
        img_properties='{"OSFAMILY": "linux", "ROOT_PARTITION": "1", "USERS": "root user"}',
    )
    assert added.ok, added.output
    disk = cluster.disk(name)
    check_filesystem(disk)
    blocks, size = filesystem_blocks(disk)
    assert 90 << 20 < blocks * size <= 95 << 20, "the file system was grown to the 96 MiB disk"
    assert read_back(disk, "/etc/hostname") == name.encode() + b"\n"
    assert read_back(disk, "/etc/machine-id").strip() in (b"", b"uninitialized")
    assert b"AAAATEST" in read_back(disk, "/root/.ssh/authorized_keys")
    assert b"AAAATEST" in read_back(disk, "/home/user/.ssh/authorized_keys")
    assert read_back(disk, "/etc/motd") == b"hi"
    motd = stat_back(disk, "/etc/motd")
    assert "Mode:  0640" in motd and "User:  1000" in motd and "Group:     4" in motd, motd
    assert b"OLD HOST KEY" not in read_back(disk, "/etc/ssh/ssh_host_ed25519_key")
    shadow = dict(line.split(b":", 1) for line in read_back(disk, "/etc/shadow").splitlines())
    assert shadow[b"root"].startswith(b"$") and shadow[b"user"].startswith(b"$")
    assert shadow[b"user"].split(b":")[2:5] == [b"1", b"90", b"7"], "ageing was kept"
    assert cluster.helper_processes() == []


def test_the_deployment_is_told_as_events_and_in_watch(cluster: Cluster, name: str, image: str) -> None:
    added = cluster.add(name, img_id=image)
    assert added.ok, added.output
    mine = [
        e for e in cluster.events() if e["source"] == f"/1/instances/{name}" and str(e["type"]).startswith("image-")
    ]
    assert mine[-1]["type"] == "image-deployed"
    assert {"image-progressed"} <= {str(e["type"]) for e in mine}
    watched = cluster.gnt(f"snf-image watch {name}").text
    assert "hostname" in watched, watched


def test_a_reinstall_leaves_nothing_of_the_former_tenant(cluster: Cluster, name: str, image: str) -> None:
    added = cluster.add(name, img_id=image)
    assert added.ok, added.output
    disk = cluster.disk(name)
    canary = b"former tenant's secret! "
    new_disk(disk, size_mib=96, pattern=canary)
    cluster.gnt(f"gnt-instance reinstall -f {name}", timeout_s=600)
    with open(disk, "rb") as file:
        assert canary not in file.read()
    assert read_back(disk, "/etc/hostname") == name.encode() + b"\n"


def test_a_renamed_instance_has_the_new_name_inside(cluster: Cluster, name: str, image: str) -> None:
    added = cluster.add(name, img_id=image)
    assert added.ok, added.output
    new = f"{name}-new"
    try:
        cluster.gnt(f"gnt-instance rename --no-ip-check --no-name-check -f {name} {new}")
        assert read_back(cluster.disk(new), "/etc/hostname") == new.encode() + b"\n"
    finally:
        if new in cluster.instances():
            cluster.remove(new)


def test_two_deployments_at_once(cluster: Cluster, name: str, image: str) -> None:
    names = (name, f"{name}-b")
    try:
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda n: cluster.add(n, img_id=image), names))
        for added in both:
            assert added.ok, added.output
            assert read_back(cluster.disk(added.name), "/etc/hostname") == added.name.encode() + b"\n"
    finally:
        if names[1] in cluster.instances():
            cluster.remove(names[1])


def test_an_export_comes_back_as_the_same_disk(cluster: Cluster, name: str, image: str) -> None:
    added = cluster.add(name, img_id=image)
    assert added.ok, added.output
    back = f"{name}-back"
    node = cluster.node.name
    try:
        cluster.gnt(f"gnt-backup export -n {node} --noshutdown {name}", timeout_s=600)
        cluster.gnt(
            f"gnt-backup import -n {node} --src-node={node} --src-dir={name} -t file "
            f"--no-name-check --no-ip-check --net 0:mac=generate {back}",
            timeout_s=600,
        )
        assert read_back(cluster.disk(back), "/etc/hostname") == back.encode() + b"\n", "import ends with a rename"
        assert read_back(cluster.disk(back), "/etc/os-release") == read_back(cluster.disk(name), "/etc/os-release")
    finally:
        if back in cluster.instances():
            cluster.remove(back)
        cluster.gnt(f"gnt-backup remove {name}", ok=(0, 1))
