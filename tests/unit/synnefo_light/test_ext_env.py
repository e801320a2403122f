"""What Ganeti 3.0.2 was seen to pass to the scripts of an ExtStorage provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from synnefo_light import ganeti
from synnefo_light.errors import ProtocolError

#: noded's own environment comes along.
NODED = {"HOME": "/root", "LC_ALL": "C", "PWD": "/usr/share/ganeti/extstorage/archipelago", "USER": "root"}
NAME = "de5ba6d5-a2eb-4318-b980-718b7ecef57d.ext.disk0"
UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
VOLUME = NODED | {
    "EXTP_ACCESS": "userspace",
    "EXTP_PROVIDER": "archipelago",
    "EXTP_ORIGIN": "debian-12",
    "VOL_NAME": NAME,
    "VOL_UUID": UUID,
}

Parse = Callable[[Mapping[str, str]], ganeti.VolumeEnv]
GROW = {"VOL_SIZE": "16", "VOL_NEW_SIZE": "20"}
SNAPSHOT = {"VOL_SNAPSHOT_NAME": f"{NAME}.snap", "VOL_SNAPSHOT_SIZE": "16"}
ACTIONS: dict[str, tuple[Parse, dict[str, str]]] = {
    "attach": (ganeti.parse_volume_env, {}),
    "create": (ganeti.parse_create_env, {"VOL_SIZE": "16"}),
    "grow": (ganeti.parse_grow_env, GROW),
    "open": (ganeti.parse_open_env, {"VOL_OPEN_EXCLUSIVE": "True"}),
    "setinfo": (ganeti.parse_set_info_env, {"VOL_METADATA": "originstname+web1.example.org"}),
    "snapshot": (ganeti.parse_snapshot_env, SNAPSHOT),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_learns_the_volume_and_the_users_own_parameters(action: str) -> None:
    parse, more = ACTIONS[action]
    env = parse(VOLUME | more)
    assert (env.volume, env.uuid, env.cname, env.access) == (NAME, UUID, None, "userspace")
    assert env.params == {"origin": "debian-12"}


def test_each_action_learns_what_it_needs_besides() -> None:
    assert ganeti.parse_create_env(VOLUME | {"VOL_SIZE": "16"}).size == 16
    grow = ganeti.parse_grow_env(VOLUME | GROW)
    assert (grow.old, grow.new) == (16, 20)
    assert ganeti.parse_open_env(VOLUME | {"VOL_OPEN_EXCLUSIVE": "True"}).exclusive
    assert not ganeti.parse_open_env(VOLUME | {"VOL_OPEN_EXCLUSIVE": "False"}).exclusive
    assert ganeti.parse_set_info_env(VOLUME | {"VOL_METADATA": "originstname+ea"}).text == "originstname+ea"
    assert ganeti.parse_volume_env(VOLUME | {"VOL_CNAME": "vol-a"}).cname == "vol-a"


def test_a_snapshot_comes_without_a_uuid() -> None:
    env = ganeti.parse_snapshot_env({k: v for k, v in VOLUME.items() if k != "VOL_UUID"} | SNAPSHOT)
    assert (env.uuid, env.snapshot, env.size) == (None, f"{NAME}.snap", 16)


@pytest.mark.parametrize(
    ("action", "name", "value"),
    [
        ("attach", "VOL_NAME", ""),
        *(("attach", "VOL_NAME", text) for text in ("..", "../x", "a/b", "a b", "-a", "a@b", "a,b", "a\n", "a.", "é")),
        ("attach", "VOL_NAME", "a" * 201),
        ("attach", "VOL_UUID", "efa8d6e0"),
        ("attach", "EXTP_ACCESS", "both"),
        *(("create", "VOL_SIZE", text) for text in ("", "0", "-1", "1.5", "16m", "²", "9" * 5000, str((16 << 20) + 1))),
        ("grow", "VOL_NEW_SIZE", "15"),
        ("grow", "VOL_NEW_SIZE", ""),
        ("open", "VOL_OPEN_EXCLUSIVE", "true"),
        ("open", "VOL_OPEN_EXCLUSIVE", ""),
        ("setinfo", "VOL_METADATA", "a" * 129),
        ("setinfo", "VOL_METADATA", "a\nb"),
        ("snapshot", "VOL_SNAPSHOT_NAME", "x/../y"),
        ("snapshot", "VOL_SNAPSHOT_SIZE", "0"),
    ],
)
def test_what_ganeti_would_never_pass_is_refused_by_name(action: str, name: str, value: str) -> None:
    parse, more = ACTIONS[action]
    parse(VOLUME | more)
    with pytest.raises(ProtocolError) as caught:
        parse(VOLUME | more | {name: value})
    assert name in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_largest_volume_is_16_tib() -> None:
    assert ganeti.parse_create_env(VOLUME | {"VOL_SIZE": str(16 << 20)}).size == 16 << 20
