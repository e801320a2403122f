"""An old configuration is read with the shell's quoting rules and nothing more."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from snf_image_host.commands.migrate import old_files
from snf_image_host.migrate import OldConfigError, parse_assignments, plan_migration

OLD = """\
# snf-image defaults file
IMAGE_DIR="/srv/images"
#IMAGE_DEBUG=no
HELPER_SOFT_TIMEOUT="5m"
HELPER_HARD_TIMEOUT=5
HELPER_USER=nobody
PROGRESS_MONITOR=/usr/bin/snf-progress-monitor
DHCP_TAGS="auto dhcp nfdhcpd"; STATEFUL_DHCPV6_TAGS='dhcpv6'
STATELESS_DHCPV6_TAGS="nfdhcpd"
DEFAULT_NIC_CONFIG="dhcp+slaac_dhcp"
WINDOWS_TIMEZONE="W. Europe Standard Time"
KVM="kvm"
SOMETHING=else
"""


def values(text: str) -> dict[str, str]:
    return {a.name: a.value for a in parse_assignments(text, name="old")}


def test_a_whole_configuration_becomes_the_keys_that_differ_from_ours() -> None:
    migrated = plan_migration(OLD, name="old")
    assert (migrated.kind, migrated.lost) == ("configuration", False)
    assert tomllib.loads(migrated.text) == {
        "image_dir": "/srv/images",
        "kvm_limit_s": 300,
        "user": "nobody",
        "progress_monitor": "/usr/bin/snf-progress-monitor",
        "stateful_dhcpv6_tags": ["dhcpv6"],
        "lone_nic_ipv6": "slaac",
        "windows_timezone": "W. Europe Standard Time",
    }
    for name in ("HELPER_HARD_TIMEOUT", "STATELESS_DHCPV6_TAGS", "KVM", "SOMETHING"):
        assert f"\n# {name}: " in migrated.text


def test_lines_may_end_as_those_of_windows_do() -> None:
    migrated = plan_migration(OLD.replace("\n", "\r\n"), name="old")
    assert migrated == plan_migration(OLD, name="old")
    assert values("A=b\\\r\nc\r\nB='x\r\ny'\r\n") == {"A": "bc", "B": "x\ny"}


@pytest.mark.parametrize(("given", "kept"), [("512", {}), ("1024", {"memory_mib": 1024}), ("much", {})])
def test_of_the_old_helper_only_more_memory_is_carried_over(given: str, kept: dict[str, int]) -> None:
    migrated = plan_migration(f"HELPER_DIR=/usr/share/snf-image/helper\nHELPER_MEMORY={given}\n", name="old")
    assert tomllib.loads(migrated.text) == kept and not migrated.lost
    assert "# HELPER_DIR: not needed" in migrated.text and "# HELPER_MEMORY: only more than the 512" in migrated.text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=", ""),
        ("A=b # c", "b"),
        ("A=b#c~", "b#c~"),
        ("export A=b", "b"),
        ("A='b $c `d` \"e\"'", 'b $c `d` "e"'),
        ('A="b \\$c \\"d\\" \\e"', 'b $c "d" \\e'),
        ("A=b\\ c", "b c"),
        ("A=b\\\nc", "bc"),
        ("A=b'c'\"d\"e", "bcde"),
        ("A='b\nc'", "b\nc"),
        ("A=1\nA=2", "2"),
    ],
)
def test_quotes_are_the_shells(text: str, value: str) -> None:
    assert values(text) == {"A": value}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=$HOME", 1),
        ('\nA="$(reboot)"', 2),
        ("A=`reboot`", 1),
        ("A=b\n\nreboot", 3),
        ("if true; then A=b; fi", 1),
        ("A='b", 1),
        ('A="b', 1),
        ("A=b & reboot", 1),
        ("A=(b c)", 1),
        ("A=~/b", 1),
        (". /etc/other", 1),
    ],
)
def test_what_only_a_shell_can_work_out_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(OldConfigError, match=f"^old:{line}: "):
        parse_assignments(text, name="old")


@pytest.mark.parametrize(
    "text",
    [
        "XEN_CMD=xl",
        "PITHOS_DATA=/x",
        "UNATTEND=/x",
        "DEFAULT_NIC_CONFIG=odd",
        "DEFAULT_NIC_CONFIG=slaac+dhcpv6",
        "HELPER_SOFT_TIMEOUT=soon",
    ],
)
def test_what_is_lost_is_said(text: str) -> None:
    migrated = plan_migration(text, name="old")
    assert migrated.lost and f"# {text.partition('=')[0]}: " in migrated.text
    assert tomllib.loads(migrated.text) == {}


def test_a_value_that_we_refuse_is_said_to_be_refused() -> None:
    migrated = plan_migration("PROGRESS_MONITOR=monitor", name="old")
    assert migrated.lost and migrated.text.startswith("# REFUSED: ")


def test_a_variant_presets_parameters_under_our_names() -> None:
    migrated = plan_migration("IMG_FORMAT=diskdump\nOSP_IMG_ID='a \"b\"'\nODD=1\n", name="v.conf")
    assert (migrated.kind, migrated.lost) == ("variant", True)
    assert tomllib.loads(migrated.text) == {"parameters": {"img_format": "diskdump", "img_id": 'a "b"'}}
    assert "chmod 600" in plan_migration("IMG_PASSWD=x", name="v.conf").text


def test_a_newline_in_a_name_or_a_value_makes_no_line_of_ours() -> None:
    migrated = plan_migration("IMAGE_DIR='/x\nuser = \"root\"'\nDEFAULT_NIC_CONFIG='x\nuser = \"root\"'", name="a\nb")
    assert set(tomllib.loads(migrated.text)) == {"image_dir"}


def test_the_old_files_of_a_node_are_found_in_their_order(tmp_path: Path) -> None:
    names = ("etc/default/snf-image", "etc/ganeti/snf-image/variants/a.conf", "etc/snf-image/snf-image.conf")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(p.relative_to(tmp_path)) for p in old_files(tmp_path)] == [names[2], names[0], names[1]]
