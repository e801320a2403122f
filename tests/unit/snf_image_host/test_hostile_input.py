"""What users, servers and the helper VM may say, drawn: each parser takes it or refuses it in its own way."""

from __future__ import annotations

import ipaddress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snf_image_host.channel import TOTAL_LIMIT, ConsoleLog, Conversation
from snf_image_host.journal import decode
from snf_image_host.params import KNOWN, ParameterError, parse_parameters
from snf_image_host.personality import FILES, parse_personality
from snf_image_host.properties import PROPERTIES, parse_properties, read_properties
from snf_image_host.request import parse_configuration
from snf_image_host.signature import parse_status
from snf_image_host.sources import HttpImage, LocalImage, check_url, parse_img_id
from snf_image_host.sources.guard import may_connect
from snf_image_host.sources.http import _size

from synnefo_light.errors import Error, PeerError, ProtocolError
from synnefo_light.manifest import Finished, Hello, Message, TaskDone, TaskStarted, Warned, encode_message
from tests.hostile_text import FIXED, JSON, json_of, shaken
from tests.task_list import NAMES, ORDER

NONCE = "0123456789abcdef" * 2
TEXTS = st.text(max_size=60)


def story() -> bytes:
    messages: list[Message] = [Hello(helper_version="1", mode="run")]
    for task in NAMES:
        messages += [TaskStarted(task=task), Warned(task=task, text="\x1b[31m"), TaskDone(task=task)]
    messages.append(Finished(nonce=NONCE))
    return b"".join(encode_message(message, seq=n) for n, message in enumerate(messages, 1))


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(raw)) for place in places} | {0, len(raw)})
    return [raw[a:b] for a, b in pairwise(ends)]


@FIXED
@given(st.lists(st.integers(0, 8000), max_size=6))
def test_a_story_is_success_in_whatever_pieces_it_comes(places: list[int]) -> None:
    conversation = Conversation(version="1", nonce=NONCE, tasks=NAMES)
    for piece in cut(story(), places):
        list(conversation.feed(piece))
    conversation.conclude()
    assert conversation.over


@FIXED
@given(st.binary(max_size=2000) | shaken(story()), st.lists(st.integers(0, 8000), max_size=4))
def test_any_stream_of_bytes_is_a_protocol_error_or_a_failure_or_the_story(raw: bytes, places: list[int]) -> None:
    conversation = Conversation(version="1", nonce=NONCE, tasks=NAMES)
    try:
        for piece in cut(raw, places):
            list(conversation.feed(piece))
        conversation.conclude()
    except Error as e:
        assert "\x1b" not in str(e) and len(str(e)) < 2000
        return
    assert {m for m in raw.splitlines() if b"finished" in m} == {m for m in story().splitlines() if b"finished" in m}


@FIXED
@given(st.binary(min_size=1, max_size=64))
def test_no_stream_goes_over_the_limit(block: bytes) -> None:
    conversation = Conversation(version="1", nonce=NONCE, tasks=NAMES)
    taken = 0
    with pytest.raises(ProtocolError):
        for _ in range(TOTAL_LIMIT // len(block) + 2):
            list(conversation.feed(block))
            taken += len(block)
    assert taken <= TOTAL_LIMIT


@FIXED
@given(st.lists(st.binary(max_size=300), max_size=10))
def test_a_console_is_kept_and_shown_without_a_control_character(pieces: list[bytes]) -> None:
    console = ConsoleLog()
    for piece in pieces:
        console.feed(piece)
    assert console.total == sum(map(len, pieces))
    assert all(char.isprintable() or ord(char) > 0x9F or char == "\t" for line in console.lines() for char in line)


@FIXED
@given(st.binary(max_size=200) | json_of(JSON).map(lambda text: text.encode("utf-8", "replace")))
def test_a_line_that_is_no_record_of_a_journal_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line)


FILE: st.SearchStrategy[object] = st.builds(
    lambda path, contents, more: {"path": f"/{path}", "contents": contents, **more},
    st.text(max_size=30),
    st.sampled_from(["aGk=", "", "?", "a"]),
    st.dictionaries(st.sampled_from(["owner", "group", "mode", "other"]), TEXTS | st.integers(-1, 0o10000), max_size=3),
)


@FIXED
@given(json_of(JSON) | json_of(st.lists(FILE, max_size=4)) | st.text(max_size=200))
def test_any_personality_is_files_below_the_root_or_a_value_error(text: str) -> None:
    try:
        files = parse_personality(text)
    except ValueError as e:
        assert len(str(e)) < 1000
        return
    assert len(files) <= FILES and len({file.path for file in files}) == len(files)
    for file in files:
        parts = file.path.split("/")
        assert parts[0] == "" and not {"", ".", ".."} & set(parts[1:]) and "\0" not in file.path


PROPERTY_NAMES = st.sampled_from([p.name for p in PROPERTIES] + ["EXCLUDE_TASK_X", "SWAP", "USERS"]) | TEXTS
VALUES = JSON | st.sampled_from(["yes", "no", "b", "2:512", "linux", "root", "sha512", "root user", "1" * 400])


@FIXED
@given(json_of(JSON) | json_of(st.dictionaries(PROPERTY_NAMES, VALUES, max_size=4)), st.booleans())
def test_any_properties_are_orders_or_a_value_error(text: str, strict: bool) -> None:
    try:
        found = read_properties(text)
        properties = parse_properties(found, ORDER, strict=strict)
    except ValueError as e:
        assert len(str(e)) < 1000
        return
    assert properties.skip <= set(NAMES)


@FIXED
@given(st.dictionaries(st.sampled_from(sorted(KNOWN)) | TEXTS, TEXTS | json_of(VALUES), max_size=5))
def test_any_parameters_are_taken_or_refused_in_a_sentence(given: dict[str, str]) -> None:
    try:
        parse_parameters({"img_id": "x", "img_format": "diskdump", **given}, tasks=ORDER)
    except ParameterError as e:
        assert len(str(e)) < 2000


@FIXED
@given(st.binary(max_size=200) | json_of(st.dictionaries(st.sampled_from(sorted(KNOWN)), JSON)).map(str.encode))
def test_any_configuration_that_a_server_sends_is_text_by_parameter_or_refused(content: bytes) -> None:
    try:
        found = parse_configuration(content)
    except ParameterError:
        return
    assert set(found) < set(KNOWN) and all(isinstance(value, str) for value in found.values())


SCHEMES = st.sampled_from(["", "local://", "file://", "file:", "http://", "HTTPS://", "ftp://", "gopher://", "http:"])
NAMES_OF_FILES = st.text("ab./\\%:@?#[]é\0\n ", max_size=30)


@FIXED
@given(st.builds(lambda scheme, rest: scheme + rest, SCHEMES, NAMES_OF_FILES | TEXTS))
def test_no_img_id_leads_out_of_the_image_folder_or_to_another_scheme(text: str) -> None:
    try:
        source = parse_img_id(text)
    except ValueError:
        return
    if isinstance(source, LocalImage):
        assert source.name and ".." not in source.name.split("/")
        assert source.deprecated or not source.name.startswith("/")
    elif isinstance(source, HttpImage):
        assert source.url.lower().startswith(("http:", "https:")) and "@" not in source.url.split("/")[2]


@FIXED
@given(st.text("htps:/[]@.%?#\\ 0179afé\0\t", max_size=40))
def test_any_url_is_one_or_a_value_error(text: str) -> None:
    try:
        assert check_url(f"http://{text}").startswith("http://")
    except ValueError as e:
        assert not set(str(e)) & set("\0\x1b\n\r")


ADDRESSES = st.integers(0, (1 << 32) - 1).map(ipaddress.IPv4Address)


@FIXED
@given(ADDRESSES.filter(lambda a: a.is_loopback or a.is_link_local or a.is_multicast) | st.sampled_from([
    ipaddress.IPv4Address(text) for text in ("127.0.0.1", "169.254.169.254", "0.0.0.0", "255.255.255.255", "224.0.0.1")
]))  # fmt: skip
def test_a_special_address_is_refused_in_every_disguise(address: ipaddress.IPv4Address) -> None:
    low = int(address)
    disguises = [0xFFFF << 32 | low, 0x64FF9B << 96 | low, 0x2002 << 112 | low << 80]
    assert not may_connect(address, ())
    assert not any(may_connect(ipaddress.IPv6Address(number), ()) for number in disguises)


class _Answer:
    """What requests makes of a server's head."""

    def __init__(self, code: int, reason: str, headers: dict[str, str]) -> None:
        self.status_code, self.reason = code, reason
        self.headers = headers


HEADERS = st.sampled_from(["Content-Length", "Content-Encoding", "Transfer-Encoding", "X"])
LENGTHS = (
    TEXTS
    | st.integers(-5, 1 << 70).map(str)
    | st.sampled_from(["1 2", "+1", "0x10", "١", "1_000", "identity", "9" * 5000])
)


@FIXED
@given(st.sampled_from([200, 206, 304, 500]), TEXTS, st.dictionaries(HEADERS, LENGTHS))
def test_a_head_gives_a_size_or_is_refused(code: int, reason: str, headers: dict[str, str]) -> None:
    answer: Any = _Answer(code, reason, headers)
    try:
        size = _size(answer, "http://x/")
    except PeerError as e:
        assert not set(str(e)) & set("\0\x1b\n\r")
        return
    said = headers["Content-Length"]
    assert size >= 0 and code == 200 and said == f"{size}".rjust(len(said), "0")


WORDS = st.sampled_from(["[GNUPG:]", "GOODSIG", "VALIDSIG", "BADSIG", "EXPKEYSIG", "REVKEYSIG", "ERRSIG", "\n", "AB12"])


@FIXED
@given(st.lists(WORDS | TEXTS, max_size=20).map(" ".join))
def test_a_signature_is_good_only_if_gpgv_says_so_and_nothing_else(status: str) -> None:
    fingerprint, why = parse_status(status)
    if why is None:
        assert fingerprint and "[GNUPG:] GOODSIG" in status and "[GNUPG:] VALIDSIG" in status
        assert "[GNUPG:] BADSIG" not in status.splitlines()
