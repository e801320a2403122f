"""Images of the store: how they are named, what the store says of them, and whether anything is copied."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from snf_extstorage.commandline import parse
from snf_extstorage.commands.image import ImageFacts
from snf_extstorage.commands.volume import Comparison as Told
from snf_image_host.params import ParameterError, Parameters, parse_parameters
from snf_image_host.plan import check_parameters
from snf_image_host.settings import Settings
from snf_image_host.sources import LocalImage, StoreImage, file_name, parse_fetchable, parse_img_id
from snf_image_host.sources.store import (
    Comparison,
    StoredImage,
    compare,
    find_stored,
    note_copy,
    open_stored,
    plan_way,
    reset,
)
from snf_image_host.vm import HelperImage

from synnefo_light.errors import EnvironmentFault, PeerError, ToolError, ToolLate, UserError
from synnefo_light.manifest import ImageFormat, SourceFormat
from synnefo_light.records import dump_json
from synnefo_light.tasks import OsFamily
from tests.fake_runner import Answer, FakeRunner
from tests.task_list import ORDER

HASH = "0123456789abcdef" * 4
IMAGE = StoreImage(reference="debian-12")
FACTS = ImageFacts(
    name="debian-12",
    kind="image",
    size=2 << 30,
    data=1 << 29,
    map=HASH,
    object_hash=HASH,
    parent=None,
    origin="/srv/debian.qcow2",
    created_ms=1,
    generation=1,
    properties={"OSFAMILY": "linux", "USERS": "root debian"},
)


def stored(**changed: Any) -> StoredImage:
    return find_stored(IMAGE, Settings(), runner=FakeRunner(Answer(stdout=dump_json(replace(FACTS, **changed)))))


def parsed(known: StoredImage | None = None, **given: str) -> Parameters:
    return parse_parameters({"img_id": "store://debian-12"} | given, tasks=ORDER, stored=known or stored())


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("store://debian-12", "debian-12"),
        ("STORE://debian-12.qcow2", "debian-12.qcow2"),
        (f"store://map:{HASH}", f"map:{HASH}"),
        (f"pithosmap://{HASH}", f"map:{HASH}"),
        (f"pithosmap://{HASH}/2147483648", f"map:{HASH}"),
    ],
)
def test_an_image_of_the_store_is_named_as_a_disks_origin_is(text: str, reference: str) -> None:
    assert parse_img_id(text) == StoreImage(reference=reference)
    assert file_name(parse_img_id(text)) == ""


@pytest.mark.parametrize(
    "text",
    [
        *("store:debian", "store:/debian", "store://", "store://-x", "store://a/b", "store://a b", "store://a\nb"),
        *("store://../x", "store://map:abc", f"store://{'x' * 201}", "store://x?y", "pithosmap://x", "pithosmap:x"),
        *(f"pithosmap://{HASH}/x", f"store://map:{HASH.upper()}"),
    ],
)
def test_what_names_no_image_of_the_store_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"store://|control characters"):
        parse_img_id(text)


def test_what_is_fetched_whole_is_not_of_the_store() -> None:
    with pytest.raises(ValueError, match="the store holds disks"):
        parse_fetchable("store://debian-12")
    assert parse_img_id("store.raw") == LocalImage(name="store.raw")


def test_both_rooms_agree_on_what_the_store_says() -> None:
    assert stored().properties == FACTS.properties
    told = Told(image="debian-12", volume="x.ext.disk0", changed=None, resets=True)
    runner = FakeRunner(Answer(returncode=1, stdout=dump_json(told)))
    assert compare(stored(), "u", Settings(snf_store="/s"), runner=runner) == Comparison(
        image="debian-12", volume="x.ext.disk0", changed=None, resets=True
    )
    assert runner.calls[0].argv == ("/s", "volume", "compare", "--json", "--", "u", f"map:{HASH}")


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (
            Answer(returncode=2, stderr=b"snf-store: there is no image, snapshot or object debian-12 in /s\n"),
            UserError,
            "^there is no image, snapshot or object debian-12 in /s$",
        ),
        (
            Answer(returncode=3, stderr=b"x\nsnf-store: /s holds no volumes\n"),
            EnvironmentFault,
            "^/s holds no volumes$",
        ),
        (Answer(returncode=70, stderr=b"snf-store: a fault"), PeerError, "snf-store ended with 70: a fault"),
        (Answer(returncode=-9), PeerError, "snf-store ended with -9"),
        (Answer(stdout=b"{}"), PeerError, "what snf-store says of debian-12 cannot be used"),
        (Answer(stdout=dump_json(replace(FACTS, map="x"))), PeerError, "map 'x' is none"),
        (Answer(stdout=dump_json(replace(FACTS, size=0))), PeerError, "size 0 is none that a disk has"),
        (Answer(stdout=dump_json(FACTS).replace(b'"kind"', b'"sort"')), PeerError, "sort: this key is not known"),
        (Answer(stdout=b" " * (2 << 20)), PeerError, "at most 1048576 are accepted"),
    ],
)
def test_what_the_store_says_otherwise_is_an_error_of_its_kind(answer: Answer, error: type, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        find_stored(IMAGE, Settings(), runner=FakeRunner(answer))


def test_a_comparison_that_is_late_cannot_be_told_and_the_image_is_copied() -> None:
    late = compare(stored(), "u", Settings(), runner=FakeRunner(lambda argv: ToolLate(argv, 300)))
    assert late.changed is None
    for reinstall in (False, True):
        way = plan_way(stored(), late, reinstall=reinstall)
        assert (way.volume, way.reset) == (None, False)
        assert way.why == "whether disk 0 is still what debian-12 is cannot be told, so the image is copied"
    with pytest.raises(ToolError, match="ended with 9"):
        compare(stored(), "u", Settings(), runner=FakeRunner(lambda argv: ToolError(argv, "ended with 9")))


def test_without_the_store_its_package_is_named() -> None:
    absent = FakeRunner(lambda argv: ToolError(argv, "was not found"))
    with pytest.raises(EnvironmentFault, match="snf-store is not on this node; install the package snf-extstorage"):
        find_stored(IMAGE, Settings(), runner=absent)


def test_only_a_disk_that_reads_as_the_image_is_not_copied_onto() -> None:
    def way(
        changed: int | None, *, volume: str | None = "v", reinstall: bool = False, resets: bool = False
    ) -> tuple[str | None, str]:
        told = Comparison(image="debian-12", volume=volume, changed=changed, resets=resets)
        found = plan_way(stored(), told, reinstall=reinstall)
        assert not found.reset
        return found.volume, found.why

    assert way(0) == ("v", "disk 0 is a clone of debian-12 that nobody wrote to: nothing is copied")
    assert way(0, reinstall=True)[0] == "v"
    for copied, words in (
        (way(1), "made with origin=debian-12"),
        (way(1, resets=True), "made with origin=debian-12"),
        (way(4096, reinstall=True), "disk 0 was written to (4 KiB may differ from debian-12), so the image is copied"),
        (way(None), "cannot be told"),
        (way(None, volume=None), "provider=archipelago,origin=debian-12"),
        (way(0, volume=None), "no volume of the store"),
    ):
        assert copied[0] is None
        assert words in copied[1]
        assert "the image is copied" in copied[1]
    assert plan_way(stored(), None, reinstall=False).volume is None


def test_a_reinstall_makes_the_disk_a_clone_again_where_that_can_be() -> None:
    told = Comparison(image="debian-12", volume="v", changed=4096, resets=True)
    found = plan_way(stored(), told, reinstall=True)
    assert (found.volume, found.reset) == ("v", True)
    assert found.why == "disk 0 was written to and becomes a clone of debian-12 again: nothing is copied"
    runner = FakeRunner()
    reset(stored(), "v", Settings(), runner=runner)
    assert runner.calls[0].argv == ("snf-store", "volume", "reset", "--", "v", f"map:{HASH}")


@pytest.mark.parametrize(("map_id", "asked"), [(HASH, f"map:{HASH}"), (None, "debian-12")])
def test_once_its_map_is_known_the_image_is_asked_for_by_that_and_not_by_its_name(
    map_id: str | None, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name may be another image's by then; only a snapshot that is not in the store yet has nothing else."""
    exported: list[Sequence[str]] = []

    @contextlib.contextmanager
    def read_from(words: Sequence[str], *, timeout_s: float) -> Iterator[None]:
        exported.append(words)
        yield

    monkeypatch.setattr("snf_image_host.sources.store.read_from", read_from)
    image = stored(map=map_id)
    with open_stored(image, Settings()) as opened:
        assert opened.name == "debian-12"
    assert exported == [["snf-store", "image", "export", "--ranges", "--", asked, "-"]]
    told = Told(image="debian-12", volume=None, changed=None, resets=True)
    runner = FakeRunner(Answer(stdout=dump_json(told)))
    compare(image, "u", Settings(), runner=runner)
    reset(image, "v", Settings(), runner=runner)
    assert [call.argv[-1] for call in runner.calls] == [asked, asked]


@pytest.mark.parametrize(("known", "words"), [(True, ("u", f"map:{HASH}")), (False, ("u",))])
def test_a_copy_is_told_to_the_store_which_may_not_know_the_disk(known: bool, words: tuple[str, ...]) -> None:
    image = stored() if known else None
    for code in (0, 1):
        runner = FakeRunner(Answer(returncode=code))
        note_copy("u", image, Settings(), runner=runner)
        assert runner.calls[0].argv == ("snf-store", "volume", "origin", "--", *words)
        parse(runner.calls[0].argv[1:])  # and it knows these words
    with pytest.raises(EnvironmentFault, match="Ceph is down"):
        note_copy("u", image, Settings(), runner=FakeRunner(Answer(returncode=3, stderr=b"snf-store: Ceph is down")))


def test_the_stores_properties_hold_where_nothing_else_is_given() -> None:
    found = parsed()
    assert (found.image_format, found.source_format) == (ImageFormat.DISKDUMP, SourceFormat.RAW)
    assert (found.properties.os_family, found.properties.users) == (OsFamily.LINUX, ("root", "debian"))
    assert found.image == "store://debian-12"
    over = parsed(img_properties='{"users": "me"}', inst_properties='{"SWAP": "file:64"}')
    assert (over.properties.users, over.properties.os_family) == (("me",), OsFamily.LINUX)
    assert parsed(stored(properties={"osfamily": "freebsd"})).properties.os_family is OsFamily.FREEBSD


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"img_format": "extdump"}, "img_format is extdump, but the store has whole disks only"),
        ({"img_source_format": "qcow2"}, "img_source_format is given, but an image of the store"),
        ({"img_compression": "xz"}, "img_compression is given"),
        ({"img_checksum": f"sha256:{HASH}"}, "img_checksum is given"),
        ({"img_signature": "x.sig"}, "img_signature is given"),
    ],
)
def test_what_would_be_said_in_vain_is_refused(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        parse_parameters({"img_id": "store://debian-12"} | given, tasks=ORDER, stored=stored())


def test_an_unknown_property_of_the_store_names_the_image_and_stops_only_who_is_strict() -> None:
    odd = stored(properties={"OSFAMLY": "linux"})
    with pytest.raises(ParameterError, match="the properties of debian-12: the property 'OSFAMLY' is not known"):
        parsed(odd)
    lenient = parse_parameters({"img_id": "store://debian-12"}, tasks=ORDER, stored=odd, strict=False)
    assert len(lenient.warnings) == 1
    with pytest.raises(ParameterError, match="or the properties of debian-12: OSFAMILY is"):
        parsed(stored(properties={"OSFAMILY": "plan9"}))


def test_a_node_that_wants_signatures_takes_nothing_of_the_store() -> None:
    helper = HelperImage(folder=Path("/nowhere"), version="1", tasks=ORDER)
    check_parameters(parsed(), Settings(), helper)
    with pytest.raises(UserError, match="which keeps no signatures"):
        check_parameters(parsed(), Settings(signature_required=True), helper)
