"""What lvm(8) says, and what is done with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from snf_image_helper import lvm
from snf_image_helper.image import VolumeGroup
from snf_image_helper.lvm import LogicalVolume, VolumeManager, node_of, parse_report
from snf_image_helper.partitions import TableError

from tests.fake_runner import Answer, FakeRunner

RECORDED = Path(__file__).parents[2] / "data" / "snf_image_helper" / "lvm-2.03.16-fullreport-two-volumes.json"
DISK = "/dev/vdb"


def report(*sections: dict[str, object]) -> bytes:
    return json.dumps({"report": list(sections)}).encode()


def section(
    name: str = "vg", *, missing: int = 0, layout: str = "linear", role: str = "public", volumes: int = 1
) -> dict[str, object]:
    return {
        "vg": [
            {"vg_name": name, "vg_extent_size": "4194304", "vg_free_count": "7", "vg_missing_pv_count": str(missing)}
        ],
        "pv": [{"pv_name": "/dev/vdb2"}],
        "lv": [
            {"lv_name": f"lv{n}", "lv_size": "8388608", "lv_layout": layout, "lv_role": role} for n in range(volumes)
        ],
        "pvseg": [],
        "seg": [],
    }


def test_what_lvm_of_debian_12_printed_is_understood() -> None:
    found = parse_report(RECORDED.read_bytes(), disk=DISK)
    assert found.groups == (VolumeGroup(name="vg-0", partitions=(2,), free_extents=15, extent_size=4 << 20),)
    assert found.volumes == (
        LogicalVolume(name="vg-0/home", size=32 << 20, is_linear=True),
        LogicalVolume(name="vg-0/root-lv", size=64 << 20, is_linear=True),
    )


@pytest.mark.parametrize(
    ("layout", "role"),
    [("thin,sparse", "public"), ("raid,raid1", "public"), ("linear", "private"), ("pool", "private")],
)
def test_volumes_that_need_other_programs_are_not_plain(layout: str, role: str) -> None:
    (found,) = parse_report(report(section(layout=layout, role=role)), disk=DISK).volumes
    assert not found.is_linear


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ([section(), section()], "two volume groups named vg"),
        ([section(missing=1)], "vg lacks a physical volume"),
        ([section(name="../etc")], "LVM itself would not allow"),
        ([section(name="-y")], "LVM itself would not allow"),
        ([section(volumes=65)], "65 logical volumes, at most 64"),
    ],
)
def test_what_must_not_be_used_is_refused(sections: list[dict[str, object]], says: str) -> None:
    with pytest.raises(TableError, match=says):
        parse_report(report(*sections), disk=DISK)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"\xff", b"{}", b"[]", b'{"report": 1}', b'{"report": [1]}', b'{"report": [{"vg": [{}]}]}'),
        report(section(name="NAME")).replace(b"NAME", b"v\x01"),
        report(section()).replace(b'"/dev/vdb2"', b'"[unknown]"'),
    ],
)
def test_a_report_that_names_have_broken_is_refused_with_a_sentence(raw: bytes) -> None:
    with pytest.raises(TableError, match="described in a way that cannot be read"):
        parse_report(raw, disk=DISK)


def test_a_report_without_an_end_is_refused() -> None:
    with pytest.raises(TableError, match="more of LVM"):
        parse_report(b" " * (1 << 20), disk=DISK)


def test_a_volume_has_the_node_that_dmsetup_gives_it() -> None:
    assert node_of("vg-0/root-lv") == "/dev/mapper/vg--0-root--lv"


class FakeDisks:
    def node(self, serial: str) -> str:
        assert serial == "snf-disk0"
        return DISK

    def partition_node(self, serial: str, number: int | None) -> str:
        return f"{self.node(serial)}{number or ''}"


class Recorder(FakeRunner):
    """lvm, which prints what was put into `reported` as its report."""

    def __init__(self, reported: bytes = b"") -> None:
        super().__init__(lambda words: Answer(stdout=reported if words[1] == "fullreport" else b""))

    @property
    def configs(self) -> set[str]:
        """What each command was given as its configuration."""
        assert all(call.argv[0] == "/usr/sbin/lvm" and call.argv[2] == "--config" for call in self.calls)
        return {call.argv[3] for call in self.calls}

    @property
    def said(self) -> list[str]:
        """Each command without it."""
        words = [call.argv for call in self.calls]
        return ["fullreport" if w[1] == "fullreport" else " ".join([w[1], *w[4:]]) for w in words]


def manager(runner: Recorder, monkeypatch: pytest.MonkeyPatch) -> VolumeManager:
    monkeypatch.setattr(lvm, "load", lambda name: None)
    return VolumeManager(FakeDisks(), "snf-disk0", runner)  # type: ignore[arg-type]


def test_what_was_activated_is_deactivated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Recorder()
    volumes = manager(runner, monkeypatch)
    assert volumes.node("vg/a") == volumes.node("vg/a") == "/dev/mapper/vg-a"
    volumes.deactivate()
    volumes.deactivate()
    assert runner.said == ["lvchange --activate y vg/a", "lvchange --activate n vg/a"]


def test_the_tools_see_the_images_disk_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Recorder(report(section()))
    manager(runner, monkeypatch).report()
    (config,) = runner.configs
    assert 'filter=["a|^/dev/vdb[0-9]*$|", "r|.*|"]' in config


@pytest.mark.parametrize(("free", "extends"), [("7", True), ("0", False)])
def test_a_volume_takes_what_is_free_after_its_partitions_grew(
    monkeypatch: pytest.MonkeyPatch, free: str, extends: bool
) -> None:
    whole = section()
    whole["vg"][0]["vg_free_count"] = free  # type: ignore[index]
    runner = Recorder(report(whole))
    manager(runner, monkeypatch).grow("vg/root", partitions=(2, 3))
    expected = ["pvresize /dev/vdb2", "pvresize /dev/vdb3", "fullreport"]
    assert runner.said == expected + (["lvextend --extents +100%FREE vg/root"] if extends else [])
