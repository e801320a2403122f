"""The seed for FreeBSD, against files that a person has read; PyYAML stands in for the two parsers that will read it.

SNF_GOLDEN=write writes the files anew. cloud-init reads YAML by PyYAML; nuageinit by its own parser (14.1) or lyaml.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from snf_image_helper.nocloud import displaced, render_network_config, render_seed

from tests.golden.snf_image_helper.cards import CARDS
from tests.unit.snf_image_helper.fake_image import manifest

HERE = Path(__file__).resolve().parent / "seed"
ASKED: dict[str, object] = {
    "users": ["root", "user"],
    "passwords": [{"user": "root", "hashed": "$6$salt/with.dots$hash"}],
    "authorized_keys": 'ssh-ed25519 AAAA a "quoted" comment\n\n# a comment: with a colon\n',
    "nics": [{"mac": "aa:00:00:00:00:01", "ipv4": "dhcp"}],
    "files": [{"path": "/etc/motd", "contents": "aGVsbG8K", "mode": 0o644}],
}


def check(name: str, text: str) -> None:
    if os.environ.get("SNF_GOLDEN") == "write":
        (HERE / name).write_text(text)
    assert text == (HERE / name).read_text()


@pytest.mark.parametrize("name", ["meta-data", "user-data"])
def test_the_seed_says_what_was_asked_for(name: str) -> None:
    content = dict(render_seed(manifest(**ASKED)))[name].decode()
    check(name, content)
    yaml = pytest.importorskip("yaml", reason="PyYAML (python3-yaml) is not installed")
    data = yaml.safe_load(content)
    if name == "user-data":
        keys = ['ssh-ed25519 AAAA a "quoted" comment']
        assert data["users"] == [{"name": user, "ssh_authorized_keys": keys} for user in ("root", "user")]
        assert data["chpasswd"]["users"] == [{"name": "root", "password": "$6$salt/with.dots$hash", "type": "hash"}]


@pytest.mark.parametrize("cards", CARDS)
def test_the_network_is_given_in_version_2(cards: str) -> None:
    text = render_network_config(CARDS[cards])
    check(f"{cards}.network-config", text)
    yaml = pytest.importorskip("yaml", reason="PyYAML (python3-yaml) is not installed")
    assert set(yaml.safe_load(text)) == {"version", "ethernets"}


def test_what_is_excluded_is_not_in_the_seed() -> None:
    skip = ["hostname", "password", "network", "personality"]
    files = dict(render_seed(manifest(**ASKED, skip=skip)))
    assert set(files) == {"meta-data", "user-data"}
    assert files["user-data"].decode() == '#cloud-config\nusers:\n  - name: "root"\n  - name: "user"\n'
    assert b"hostname" not in files["meta-data"]


def test_the_users_own_user_data_is_passed_on_as_it_is() -> None:
    files = dict(render_seed(manifest(**ASKED, cloud_init={"userdata": "IyEvYmluL3NoCg=="})))
    assert files["user-data"] == b"#!/bin/sh\n"


def test_what_the_users_own_user_data_takes_the_place_of_is_told() -> None:
    own = {"userdata": "IyEvYmluL3NoCg=="}
    assert displaced(manifest(**ASKED, cloud_init=own)) == [
        "the passwords",
        "the keys",
        "the files of img_personality",
    ]
    assert displaced(manifest(**ASKED, cloud_init=own, skip=["password", "personality"])) == []
    assert displaced(manifest(**ASKED)) == displaced(manifest(**ASKED, cloud_init={})) == []
