"""Manifest and messages: what we write is read back, and whatever else comes is refused with a ProtocolError alone."""

from __future__ import annotations

import hashlib
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synnefo_light.errors import ProtocolError
from synnefo_light.log import Secret
from synnefo_light.manifest import (
    HEADER,
    LINE_LIMIT,
    MAGIC,
    TEXT_LIMIT,
    CloudInit,
    Disk,
    Failed,
    Finished,
    Hello,
    InjectedFile,
    Manifest,
    Measured,
    Message,
    Nic,
    Password,
    Progressed,
    Source,
    Swap,
    TaskDone,
    TaskSkipped,
    TaskStarted,
    Warned,
    Windows,
    decode,
    encode,
    encode_message,
    parse_message,
)
from synnefo_light.records import RecordError, build, dump_json, load_json, parse_json, plain
from tests.hostile_text import FIXED, JSON, json_of, shaken

TEXT = st.text(max_size=60)
NAME = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
BASE64 = st.sampled_from(["", "aGk=", "AAAA"])
OCTET = st.integers(0, 255)
MAC = st.tuples(*[OCTET] * 6).map(lambda octets: ":".join(f"{o:02x}" for o in octets))
IPV4 = st.tuples(*[OCTET] * 4).map(lambda octets: ".".join(map(str, octets)))
NICS = st.builds(
    Nic,
    mac=MAC,
    ipv4=st.just("static"),
    ipv4_address=IPV4.map(lambda a: f"{a}/24"),
    ipv4_gateway=st.none() | IPV4,
    nameservers=st.lists(IPV4, max_size=2).map(tuple),
    search=st.lists(LABEL, max_size=2).map(tuple),
    mtu=st.none() | st.integers(68, 65536),
)
PASSWORDS = st.builds(
    Password,
    user=st.from_regex(r"[a-z_][a-z0-9_-]{0,20}", fullmatch=True),
    clear=TEXT.filter(lambda text: "\0" not in text).map(Secret),
)
FILES = st.builds(
    InjectedFile,
    path=st.lists(LABEL, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    contents=BASE64,
    mode=st.integers(0, 0o7777),
)
SWAPS = (
    st.builds(Swap, disk=st.integers(1, 15))
    | st.builds(Swap, file_mib=st.integers(1, 1 << 20))
    | st.builds(Swap, partition=st.integers(1, 128), size_mib=st.integers(1, 1 << 20))
)
MANIFESTS = st.builds(
    Manifest,
    helper_version=TEXT,
    nonce=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    instance=TEXT,
    hostname=st.lists(LABEL, min_size=1, max_size=4).map(".".join),
    source=st.none() | st.builds(Source, size=st.integers(1, (1 << 60) - 1)),
    disks=st.integers(1, 16).map(lambda count: tuple(Disk(index=n, size=n + 1) for n in range(count))),
    root_partition=st.none() | st.integers(1, 128),
    nics=st.lists(NICS, max_size=3).map(tuple),
    passwords=st.lists(PASSWORDS, max_size=3).map(tuple),
    authorized_keys=TEXT,
    files=st.lists(FILES, max_size=3).map(tuple),
    swap=st.none() | SWAPS,
    cloud_init=st.none() | st.builds(CloudInit, userdata=BASE64),
    custom_task=st.none() | BASE64,
    windows=st.none() | st.builds(Windows, product_key=st.none() | TEXT.map(Secret)),
    skip=st.frozensets(NAME, max_size=4),
)
BYTES = st.tuples(st.integers(0, 1 << 59), st.integers(0, 1 << 59)).map(sorted)
MESSAGES: st.SearchStrategy[Message] = (
    st.builds(Hello, helper_version=TEXT, mode=st.sampled_from(["run", "selftest"]))
    | st.builds(TaskStarted, task=NAME)
    | st.builds(lambda task, sizes: Progressed(task=task, done=sizes[0], total=sizes[1]), NAME, BYTES)
    | st.builds(Measured, task=NAME, size=st.integers(1, (1 << 60) - 1))
    | st.builds(TaskDone, task=NAME)
    | st.builds(TaskSkipped, task=NAME, reason=TEXT)
    | st.builds(Warned, task=st.none() | NAME, text=TEXT)
    | st.builds(Failed, task=st.none() | NAME, reason=TEXT, changed=st.booleans())
    | st.builds(Finished, nonce=TEXT)
)


def test_every_kind_of_message_is_drawn() -> None:
    drawn = {Hello, TaskStarted, Progressed, Measured, TaskDone, TaskSkipped, Warned, Failed, Finished}
    assert drawn == set(get_args(Message))


@FIXED
@given(MANIFESTS)
def test_every_manifest_comes_back_as_it_was(manifest: Manifest) -> None:
    raw = encode(manifest)
    assert len(raw) % 512 == 0
    assert decode(raw) == manifest and encode(decode(raw)) == raw


@FIXED
@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda rest: MAGIC + rest))
def test_bytes_that_are_no_manifest_are_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(raw)


GOOD = encode(
    Manifest(helper_version="1", nonce="0" * 32, instance="web1", hostname="web1", disks=(Disk(index=0, size=1),))
)


@FIXED
@given(shaken(GOOD))
def test_a_manifest_that_was_changed_is_refused_or_unchanged(raw: bytes) -> None:
    try:
        assert decode(raw) == decode(GOOD)
    except ProtocolError as e:
        assert len(str(e)) < 1000


@FIXED
@given(json_of(JSON) | json_of(st.dictionaries(st.sampled_from(list(Manifest.__dataclass_fields__)), JSON)))
def test_a_manifest_with_a_right_checksum_and_wrong_content_is_refused(text: str) -> None:
    payload = text.encode("utf-8", "replace")
    header = HEADER.pack(MAGIC, 1, 0, len(payload), hashlib.sha256(payload).digest())
    with pytest.raises(ProtocolError, match="the manifest says"):
        decode(header + payload)


@FIXED
@given(MESSAGES, st.integers(1, 1 << 40))
def test_every_message_comes_back_as_it_was(message: Message, seq: int) -> None:
    line = encode_message(message, seq=seq)
    assert line.count(b"\n") == 1 and len(line) <= LINE_LIMIT
    assert parse_message(line[:-1], seq=seq) == message


@FIXED
@given(st.binary(max_size=300) | json_of(JSON).map(lambda text: text.encode("utf-8", "replace")))
def test_a_line_that_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="broke its protocol"):
        parse_message(line, seq=1)


@FIXED
@given(MESSAGES.flatmap(lambda message: shaken(encode_message(message, seq=1)[:-1])))
def test_a_message_that_was_changed_is_bounded_or_refused(line: bytes) -> None:
    try:
        message = parse_message(line, seq=1)
    except ProtocolError:
        return
    fields: dict[str, Any] = {name: getattr(message, name) for name in message.__dataclass_fields__}
    assert all(len(value) <= TEXT_LIMIT for value in fields.values() if isinstance(value, str))


@FIXED
@given(st.binary(max_size=300) | json_of(JSON).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_json_or_a_record_error(raw: bytes) -> None:
    try:
        data = load_json(raw, limit=400)
    except RecordError:
        return
    assert load_json(dump_json(data), limit=4000) == data


@FIXED
@given(MANIFESTS, st.sampled_from(list(Manifest.__dataclass_fields__)), JSON)
def test_any_value_in_place_of_a_field_is_taken_as_it_is_or_refused(manifest: Manifest, field: str, value: Any) -> None:
    data = plain(manifest)
    assert isinstance(data, dict)
    try:
        made = build({**data, field: value}, Manifest)
    except RecordError:
        return
    assert parse_json(dump_json(made), Manifest, limit=1 << 20) == made
