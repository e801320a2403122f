from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from synnefo_light.errors import ProtocolError
from synnefo_light.log import Secret
from synnefo_light.manifest import (
    FRAMED_LIMIT,
    HEADER,
    LINE_LIMIT,
    MAGIC,
    Disk,
    Failed,
    Finished,
    Hello,
    InjectedFile,
    Manifest,
    Message,
    Nic,
    Password,
    Swap,
    TaskDone,
    TaskSkipped,
    TaskStarted,
    Warned,
    decode,
    encode,
    encode_message,
    parse_message,
)

NONCE = "0123456789abcdef" * 2


def a_manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "helper_version": "0.1.0",
        "nonce": NONCE,
        "instance": "web1",
        "hostname": "web1",
        "disks": (Disk(index=0, size=1 << 30),),
    }
    return Manifest(**fields | changes)


def test_a_manifest_survives_the_way_to_the_helper() -> None:
    manifest = a_manifest(
        nics=(Nic(mac="aa:00:00:00:00:01", ipv4="static", ipv4_address="10.0.0.5/24", ipv4_gateway="10.0.0.1"),),
        passwords=(Password(user="root", clear=Secret("p\n'\"ä")),),
        files=(InjectedFile(path="/etc/motd", contents="aGk="),),
        swap=Swap(disk=1),
        skip=frozenset({"network"}),
    )
    raw = encode(manifest)
    assert len(raw) % 512 == 0
    assert decode(raw) == manifest
    assert encode(decode(raw)) == raw


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: raw[:10], "its header alone takes 64"),
        (lambda raw: b"X" + raw[1:], "does not begin as a manifest does"),
        (lambda raw: raw[:8] + b"\x02" + raw[9:], "version 2"),
        (lambda raw: raw[:70] + bytes([raw[70] ^ 1]) + raw[71:], "damaged"),
        (lambda raw: raw[:100], "damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(damage: Any, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        decode(damage(encode(a_manifest())))


def test_an_unknown_key_in_a_manifest_is_refused_by_name() -> None:
    payload = json.dumps({"version": 1, "colour": "red"}).encode()
    raw = HEADER.pack(MAGIC, 1, 0, len(payload), hashlib.sha256(payload).digest()) + payload
    with pytest.raises(ProtocolError, match="colour: this key is not known"):
        decode(raw)


def test_a_manifest_over_the_limit_is_refused_with_its_size() -> None:
    big = InjectedFile(path="/x", contents="A" * FRAMED_LIMIT)
    with pytest.raises(ProtocolError, match="inject less or smaller files"):
        encode(a_manifest(files=(big,)))


@pytest.mark.parametrize(
    "changes",
    [
        {"hostname": "a b"},
        {"hostname": "-a"},
        {"hostname": ""},
        {"hostname": "a\n"},
        {"nonce": "short"},
        {"disks": ()},
        {"disks": (Disk(index=1, size=1),)},
        {"skip": frozenset({"Not a name"})},
        {"users": ("ro ot",)},
        {"root_partition": 0},
    ],
)
def test_a_manifest_that_makes_no_sense_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        a_manifest(**changes)


@pytest.mark.parametrize("path", ["etc/motd", "/etc/../x", "/etc/", "/a\0b", "/" + "a" * 5000])
def test_an_injected_file_needs_a_plain_absolute_path(path: str) -> None:
    with pytest.raises(ValueError):
        InjectedFile(path=path, contents="")


@pytest.mark.parametrize("hashed", ["a:b", "a\nb", ""])
def test_a_hash_that_would_break_shadow_is_refused(hashed: str) -> None:
    with pytest.raises(ValueError):
        Password(user="root", hashed=Secret(hashed))


MESSAGES: list[Message] = [
    Hello(helper_version="0.1.0", mode="run"),
    TaskStarted(task="hostname"),
    TaskDone(task="hostname"),
    TaskSkipped(task="swap", reason="not asked for"),
    Warned(task=None, text="odd"),
    Failed(task="mount", reason="no root", changed=False),
    Finished(nonce=NONCE),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_survives_the_channel(message: Message) -> None:
    line = encode_message(message, seq=7)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert parse_message(line[:-1], seq=7) == message


def test_the_longest_message_fits_the_line_limit() -> None:
    for char in ("x", "\x01", "ä", "\U0001f600", "\udcff", '"'):
        line = encode_message(Failed(task="mount", reason=char * 5000, changed=True), seq=1)
        assert len(line) <= LINE_LIMIT
        assert isinstance(parse_message(line[:-1], seq=1), Failed)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"SUCCESS",
        b"[]",
        b'{"seq":1}',
        b'{"seq":1,"type":"paint"}',
        b'{"seq":1,"type":["hello"]}',
        b'{"seq":2,"type":"task-done","task":"mount"}',
        b'{"seq":true,"type":"task-done","task":"mount"}',
        b'{"seq":1,"type":"task-done","task":"Paint it"}',
        b'{"seq":1,"type":"task-done","task":"mount","more":1}',
        b'{"seq":1,"type":"task-done"}',
        b'{"seq":1,"type":"hello","helper_version":"' + b"A" * 2000 + b'","mode":"run"}',
        b'{"seq":1,"type":"warned","task":null,"text":"' + b"A" * 9000 + b'"}',
        b'{"seq":1,"seq":1,"type":"task-done","task":"mount"}',
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_anything_else_on_the_channel_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_message(line, seq=1)


def test_no_secret_shows_in_a_manifests_repr() -> None:
    manifest = a_manifest(passwords=(Password(user="root", clear=Secret("hunter2")),))
    assert "hunter2" not in repr(manifest)
    assert "hunter2" not in str(dataclasses.asdict(manifest))


@pytest.mark.parametrize(
    "given",
    [
        {"ipv6": "static", "ipv6_address": "fe80::1%eth0/64"},
        {"ipv6": "static", "ipv6_address": "2001:db8::5/64", "ipv6_gateway": "fe80::1%eth0"},
        {"nameservers": ("fe80::1%a b",)},
    ],
)
def test_an_address_with_a_scope_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has a scope"):
        Nic(mac="aa:00:00:00:00:01", **given)


def test_a_manifest_with_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ProtocolError, match="half a surrogate pair"):
        encode(a_manifest(authorized_keys="\udcff"))
