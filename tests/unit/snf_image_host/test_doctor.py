"""What the doctor makes of what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from snf_image_host.probing import (
    IMAGES,
    NAMES,
    RULE,
    accepts,
    judge_lvm,
    judge_mdadm,
    looked_into,
    multipath,
    parse_lvmconfig,
    udev,
)

TREE = Path(__file__).resolve().parents[3]
SHIPPED = parse_lvmconfig((TREE / "snf-image-host" / "lvm-filter.conf").read_text().replace(" = ", "="))

#: lvmconfig 2.03.16 of Debian 12, as it comes.
DEBIAN_12 = 'global_filter=["a|.*|"]\nscan_lvs=0\nuse_devicesfile=0\n'


def test_debians_lvm_looks_into_instances_and_the_shipped_filter_ends_that() -> None:
    assert judge_lvm(parse_lvmconfig(DEBIAN_12), listed=False).state == "warn"
    assert SHIPPED["scan_lvs"] == ["0"]
    assert judge_lvm(SHIPPED, listed=False).state == "ok"


@pytest.mark.parametrize(
    ("config", "listed", "state"),
    [
        ({"global_filter": ["a|^/dev/sd|", "r|.*|"]}, False, "ok"),
        ({"global_filter": [*SHIPPED["global_filter"], "a|.*|"]}, False, "warn"),
        ({"global_filter": SHIPPED["global_filter"], "scan_lvs": ["1"]}, False, "warn"),
        ({"global_filter": ["r|^/dev/drbd|"]}, False, "warn"),
        ({"use_devicesfile": ["1"]}, True, "ok"),
        ({"use_devicesfile": ["1"]}, False, "warn"),
        ({}, False, "warn"),
    ],
)
def test_filters_are_judged_by_what_they_let_through(config: dict[str, list[str]], listed: bool, state: str) -> None:
    assert judge_lvm(config, listed=listed).state == state


@pytest.mark.parametrize(
    ("patterns", "passes"),
    [
        ([], True),
        (["r|^/dev/loop|"], False),
        (["r|^/dev/loop|", "a|.*|"], True),  # by its other name, /dev/block/7:0
        (["r/loop/", "r/block/", "a/.*/"], False),
        (["a(^/dev/loop0$)", "r(.*)"], True),
        (["r[^/dev/sd]"], True),
    ],
)
def test_a_device_passes_when_one_of_its_names_is_accepted_or_none_is_rejected(
    patterns: list[str], passes: bool
) -> None:
    assert accepts(patterns, NAMES["loop"]) is passes


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", "warn"),
        ("HOMEHOST <system>\nMAILADDR root\n", "warn"),
        ("# AUTO -all\n", "warn"),
        ("DEVICE partitions containers\n", "warn"),
        ("ARRAY /dev/md0 UUID=1\nAUTO -all\n", "ok"),
        ("DEVICE /dev/sd* /dev/nvme*\n", "ok"),
    ],
)
def test_md_is_kept_from_foreign_arrays_by_auto_or_by_devices(text: str, state: str) -> None:
    assert judge_mdadm(text).state == state


def node(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_node_without_udev_is_fine_and_one_without_the_rule_is_not(tmp_path: Path) -> None:
    assert [f.state for f in udev(tmp_path)] == ["ok"]
    node(tmp_path, **{"run/udev/control": ""})
    assert [f.state for f in udev(tmp_path)] == ["fail"]
    node(tmp_path, **{f"usr/lib/udev/rules.d/{RULE}": "rule\n"})
    assert [f.state for f in udev(tmp_path)] == ["ok"]
    node(tmp_path, **{f"etc/udev/rules.d/{RULE}": ""})
    assert [f.state for f in udev(tmp_path)] == ["warn"]


def test_udevs_database_tells_which_disks_it_has_looked_into(tmp_path: Path) -> None:
    seen = "I:1\nE:ID_FS_TYPE=ext4\n"
    block = "sys/class/block"
    node(
        tmp_path,
        **{
            f"{block}/drbd0/dev": "147:0\n",
            f"{block}/drbd1/dev": "147:1\n",
            f"{block}/sda1/dev": "8:1\n",
            f"{block}/dm-0/dev": "254:0\n",
            f"{block}/dm-0/dm/name": "xenvg-41dffc9d--29e0.disk0\n",
            f"{block}/dm-1/dev": "254:1\n",
            f"{block}/dm-1/dm/name": "xenvg-root\n",
            f"{block}/rbd0p1/dev": "252:1\n",
            f"{block}/loop0/dev": "7:0\n",
            f"{block}/loop0/loop/backing_file": "/srv/ganeti/file-storage/web1/disk0\n",
            f"{block}/loop1/dev": "7:1\n",
            f"{block}/loop1/loop/backing_file": "/root/disk\n",
            "run/udev/data/b7:0": seen,
            "run/udev/data/b7:1": seen,
            "run/udev/data/b147:0": seen,
            "run/udev/data/b147:1": "I:1\nE:SNF_IMAGE_INSTANCE_DISK=1\n",
            "run/udev/data/b8:1": seen,
            "run/udev/data/b254:0": "E:ID_PART_TABLE_TYPE=gpt\n",
            "run/udev/data/b254:1": seen,
            "run/udev/data/b252:1": seen,
            "run/udev/control": "",
            f"usr/lib/udev/rules.d/{RULE}": "rule\n",
        },
    )
    assert list(looked_into(tmp_path)) == ["dm-0", "drbd0", "loop0", "rbd0p1"]
    assert [f.state for f in udev(tmp_path)] == ["ok", "warn", "warn", "warn", "warn"]


def test_the_rule_knows_the_folders_that_it_names_and_ganetis_others_are_told(tmp_path: Path) -> None:
    rule = (TREE / "snf-image-host" / RULE).read_text()
    assert "|".join(f"{folder}*" for folder in IMAGES) in rule
    node(tmp_path, **{"run/udev/control": "", f"usr/lib/udev/rules.d/{RULE}": "rule\n"})
    node(tmp_path, **{"var/lib/ganeti/ssconf_file_storage_dir": "/srv/ganeti/file-storage\n"})
    assert [f.state for f in udev(tmp_path)] == ["ok"]
    node(tmp_path, **{"var/lib/ganeti/ssconf_shared_file_storage_dir": "/mnt/nfs\n"})
    found = list(udev(tmp_path))
    assert [f.state for f in found] == ["ok", "warn"] and "/mnt/nfs/*" in found[1].remedy


def test_multipath_is_looked_at_where_it_is(tmp_path: Path) -> None:
    assert list(multipath(tmp_path)) == []
    node(tmp_path, **{"sbin/multipathd": ""})
    assert [f.state for f in multipath(tmp_path)] == ["warn"]
    node(tmp_path, **{"etc/multipath.conf": 'blacklist { devnode "^(drbd|rbd|nbd|loop)" }\n'})
    assert [f.state for f in multipath(tmp_path)] == ["ok"]
