"""What the lab's Ceph is configured with, and which process is taken for one of its daemons."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path

import pytest
from snf_lab import packages
from snf_lab.ceph import (
    CLIENT,
    CLIENT_PACKAGES,
    POOLS,
    Ceph,
    Shape,
    new_fsid,
    render_client_conf,
    render_conf,
    render_store_conf,
)
from snf_lab.state import LabConfig

from synnefo_light.errors import UserError

SHAPE = Shape(folder=Path("/lab/ceph"), fsid=new_fsid(), address="10.78.0.254")


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def test_every_side_must_show_a_key() -> None:
    conf = parsed(render_conf(SHAPE))["global"]
    assert [conf[f"auth {side} required"] for side in ("cluster", "service", "client")] == ["cephx"] * 3


def test_a_client_does_not_bind_the_daemons_admin_sockets() -> None:
    conf = parsed(render_conf(SHAPE))
    assert [section for section in conf.sections() if "admin socket" in conf[section]] == ["mon", "osd"]


def test_the_monitor_has_its_own_keyring() -> None:
    assert parsed(render_conf(SHAPE))["mon.a"]["keyring"] == "/lab/ceph/mon/keyring"


def test_a_client_is_told_the_monitors_and_its_keyring_and_no_folder_of_the_daemons() -> None:
    text = render_client_conf(SHAPE, keyring="/etc/ceph/k")
    conf = parsed(text)
    assert conf["global"]["mon host"] == "[v2:10.78.0.254:3300,v1:10.78.0.254:6789]"
    assert conf[f"client.{CLIENT}"]["keyring"] == "/etc/ceph/k"
    assert "/lab/ceph" not in text


def test_pool_names_can_stand_in_a_uri_of_ganeti_3_1() -> None:
    assert all(pool.isalnum() for pool in POOLS)


def test_a_pid_file_that_names_another_program_names_no_daemon(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "osd.0.pid").write_text("1\n")
    (tmp_path / "run" / "mon.a.pid").write_text("torn")
    assert Ceph(tmp_path).pids() == {}


def test_the_nodes_repository_offers_what_a_client_needs() -> None:
    assert set(CLIENT_PACKAGES) <= set(packages.FOR_TESTS)


def test_a_node_of_the_lab_keeps_volumes_and_store_in_its_pools() -> None:
    said = tomllib.loads(render_store_conf(CLIENT))
    assert said == {"engine": "rados", "ceph": {"user": CLIENT, "pool": POOLS[0], "store_pool": POOLS[2]}}


def test_an_unknown_storage_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="storage 'gluster' is unknown; known are directory, rados"):
        LabConfig(release="bookworm", nodes=1, dev=False, storage="gluster")
