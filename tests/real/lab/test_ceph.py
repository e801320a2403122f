"""The tests' Ceph is a real one: its keys are asked for, and nothing of it stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from snf_lab.ceph import CLIENT, POOLS, Ceph

from synnefo_light.errors import ToolError
from synnefo_light.run import run


def as_client(ceph: Ceph, *words: str | Path) -> str:
    return run([words[0], "--conf", ceph.client_conf, "--id", CLIENT, *words[1:]], timeout_s=30).text


def test_a_client_with_the_rbd_profile_makes_and_removes_a_disk(ceph: Ceph) -> None:
    as_client(ceph, "rbd", "create", "--size", "8M", f"{POOLS[0]}/made-by-client")
    assert "made-by-client" in ceph.run(["rbd", "ls", POOLS[0]]).text.split()
    as_client(ceph, "rbd", "rm", "--no-progress", f"{POOLS[0]}/made-by-client")
    assert "made-by-client" not in ceph.run(["rbd", "ls", POOLS[0]]).text.split()


def test_the_client_is_not_an_administrator(ceph: Ceph) -> None:
    with pytest.raises(ToolError, match="EACCES"):
        as_client(ceph, "ceph", "osd", "pool", "create", "of-the-client")


def test_a_wrong_key_is_refused(ceph: Ceph, tmp_path: Path) -> None:
    keyring = tmp_path / "keyring"
    keyring.write_text(f"[client.{CLIENT}]\n\tkey = AQBnTN1lAAAAABAAo0BG1C8qCSDAw0sGd5HMsQ==\n")
    conf = tmp_path / "conf"
    conf.write_text(ceph.client_conf.read_text().replace(str(ceph.client_keyring), str(keyring)))
    with pytest.raises(ToolError):
        run(["rados", "--conf", conf, "--id", CLIENT, "--pool", POOLS[0], "ls"], timeout_s=30)


def test_its_daemons_are_those_of_its_pid_files(ceph: Ceph) -> None:
    pids = ceph.pids()
    assert set(pids) == {"mon.a", "osd.0"}
    assert {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids.values()} == {"ceph-mon", "ceph-osd"}
    assert os.getpid() not in pids.values()
