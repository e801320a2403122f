"""What the engine and the provider `rados` decide without a cluster."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import pytest
from snf_extstorage.provider import render_parameters_list
from snf_extstorage.rados import uri as uris
from snf_extstorage.rados.contents import merged
from snf_extstorage.rados.elsewhere import Elsewhere, plan_pools
from snf_extstorage.rados.images import Client, Images
from snf_extstorage.rados.mapping import parse_mapped, render_map
from snf_extstorage.rados.places import is_same_place
from snf_extstorage.rados.provider import PARAMETERS, parse_disk
from snf_extstorage.rados.record import BaseRecord, DamagedRecord, PlaceRecord, VolumeRecord, parse_line, render_line
from snf_extstorage.rados.uri import reads_user, render_uri
from snf_extstorage.settings import CephSettings, Settings
from snf_extstorage.volume import Extent

from synnefo_light.ceph import Access, Cluster
from synnefo_light.errors import PeerError, UserError

#: lib/hypervisor/hv_kvm/kvm_utils.py of Ganeti 3.1.0~rc2, and what `:id=` later became part of.
GANETI_3_1_RC2 = re.compile(r"^rbd:(?P<pool>\w+)/(?P<image>[a-z0-9-\.]+)$")
VOLUME = "de5ba6d5-a2eb-4318-b980-718b7ecef57d.ext.disk0"
SETTINGS = Settings()
TREE = Path(__file__).resolve().parents[3]


def test_a_uri_names_the_user_unless_it_is_the_default() -> None:
    assert render_uri(pool="volumes", namespace="", image=VOLUME, user="ganeti") == f"rbd:volumes/{VOLUME}:id=ganeti"
    for with_user in (True, False):
        uri = render_uri(pool="volumes", namespace="", image=VOLUME, user="admin", with_user=with_user)
        found = GANETI_3_1_RC2.fullmatch(uri)
        assert found is not None
        assert found["image"] == VOLUME


def test_a_user_that_ganeti_cannot_pass_on_is_refused() -> None:
    with pytest.raises(UserError, match=r"to be used as client\.ganeti, which Ganeti 3\.1 cannot tell QEMU"):
        render_uri(pool="volumes", namespace="", image=VOLUME, user="ganeti", with_user=False)


@pytest.mark.parametrize(
    ("setting", "version", "reads"),
    [
        ("auto", (3, 0), True),
        ("auto", (3, 1), False),
        ("auto", None, True),
        ("always", (3, 1), True),
        ("never", (3, 0), False),
    ],
)
def test_whether_ganeti_reads_a_user_is_as_set_or_as_its_version(
    setting: Literal["auto", "always", "never"],
    version: tuple[int, int] | None,
    reads: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uris, "installed_version", lambda: version)
    assert reads_user(setting) is reads


@pytest.mark.parametrize(
    ("pool", "namespace", "image", "words"),
    [
        ("a-b", "", VOLUME, "the pool a-b has a character"),
        ("a.b", "", VOLUME, "the pool a.b has a character"),
        ("volumes", "tenant", VOLUME, "in the namespace tenant"),
        ("volumes", "", "Web.disk0", "the image Web.disk0 has a character"),
        ("volumes", "", "web_1", "the image web_1 has a character"),
    ],
)
def test_what_ganeti_3_1_cannot_read_is_refused(pool: str, namespace: str, image: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        render_uri(pool=pool, namespace=namespace, image=image, user="admin")


def test_the_kernel_has_a_client_for_each_disk_so_the_fence_shuts_out_one() -> None:
    cluster = Cluster(Access(conf=Path("/etc/ceph/ceph.conf"), user="ganeti"))
    images = cast("Images", SimpleNamespace(cluster=cluster, place="volumes/tenant"))
    client = "rbd --conf /etc/ceph/ceph.conf --id ganeti"
    assert " ".join(render_map(images, VOLUME)) == f"{client} device map --options noshare volumes/tenant/{VOLUME}"


def test_parts_are_put_in_order_joined_and_cut() -> None:
    parts = [(8, 4), (0, 2), (2, 2), (10, 1), (30, 20), (6, 0)]
    assert list(merged(parts, size=40)) == [
        Extent(start=0, length=4),
        Extent(start=8, length=4),
        Extent(start=30, length=10),
    ]
    assert list(merged([], size=40)) == []
    assert list(merged([(50, 5)], size=40)) == []


def test_a_client_tells_its_host() -> None:
    assert Client(address="10.0.0.1:0/123").host == "10.0.0.1"
    assert Client(address="v2:10.0.0.1:0/123").host == "10.0.0.1"
    assert Client(address="[2001:db8::1]:0/123").host == "[2001:db8::1]"


MAPPED = """[{"id":"0","pool":"volumes","namespace":"","name":"web1","snap":"-","device":"/dev/rbd0"},
{"id":"1","pool":"volumes","namespace":"","name":"web2","snap":"s","device":"/dev/rbd1"},
{"id":"2","pool":"volumes","namespace":"t","name":"web3","snap":"-","device":"/dev/rbd2"}]"""


def test_a_mapped_image_is_found_by_pool_namespace_and_name_and_not_by_a_snapshot_of_it() -> None:
    assert parse_mapped(MAPPED, pool="volumes", namespace="", image="web1") == "/dev/rbd0"
    assert parse_mapped(MAPPED, pool="volumes", namespace="", image="web2") is None
    assert parse_mapped(MAPPED, pool="volumes", namespace="", image="web3") is None
    assert parse_mapped(MAPPED, pool="volumes", namespace="t", image="web3") == "/dev/rbd2"
    assert parse_mapped("", pool="volumes", namespace="", image="web1") is None


@pytest.mark.parametrize("said", ["not json", '[{"id":"0"}]', "[1]", '"x"'])
def test_what_rbd_says_otherwise_is_an_error_and_no_device(said: str) -> None:
    with pytest.raises(PeerError, match="what cannot be read"):
        parse_mapped(said, pool="volumes", namespace="", image="web1")


def test_a_disk_without_parameters_is_as_the_site_has_it() -> None:
    disk = parse_disk({}, SETTINGS)
    at = disk.place
    assert (at.pool, at.user, disk.origin, at.features, at.fence) == ("volumes", "ganeti", None, None, True)
    assert at.object_size == 1 << 20


def test_a_disks_parameters_go_before_the_sites() -> None:
    params = {
        "pool": "fast",
        "data_pool": "ec",
        "user": "web",
        "origin": "debian-12@gold",
        "features": "layering+exclusive-lock",
        "object_size": "64K",
        "fence": "no",
    }
    disk = parse_disk(params, SETTINGS)
    at = disk.place
    assert (at.pool, at.data_pool, at.user, disk.origin) == ("fast", "ec", "web", ("debian-12", "gold"))
    assert (at.features, at.object_size, at.fence) == (5, 65536, False)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"origin": "debian-12"}, "not IMAGE@SNAPSHOT"),
        ({"origin": "a/b@c"}, "not IMAGE@SNAPSHOT"),
        ({"origin": "a@b@c"}, "not IMAGE@SNAPSHOT"),
        ({"features": "layering"}, "lacks exclusive-lock"),
        ({"features": "layering,exclusive-lock,magic"}, "'magic'; known are layering"),
        ({"object_size": "3M"}, "power of two from 4K to 32M"),
        ({"object_size": "64M"}, "power of two from 4K to 32M"),
        ({"fence": "maybe"}, "it can be yes or no"),
    ],
)
def test_a_parameter_that_will_not_do_is_named(params: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_disk(params, SETTINGS)


def test_every_parameter_is_read() -> None:
    samples = {
        "pool": "p",
        "data_pool": "d",
        "namespace": "n",
        "user": "u",
        "origin": "i@s",
        "features": "layering,exclusive-lock",
        "object_size": "8K",
        "fence": "no",
    }
    assert set(samples) == {parameter.name for parameter in PARAMETERS}
    usual = parse_disk({}, SETTINGS)
    assert [name for name, value in samples.items() if parse_disk({name: value}, SETTINGS) == usual] == []


def test_objects_of_an_odd_size_are_refused_in_the_configuration() -> None:
    with pytest.raises(ValueError, match="not a power of two"):
        CephSettings(object_kib=3)


def test_the_providers_folder_has_what_ganeti_asks_for_and_the_list_of_its_parameters() -> None:
    folder = TREE / "extstorage" / "rados"
    assert (folder / "parameters.list").read_text() == render_parameters_list(PARAMETERS)
    beside = {path.name for path in (TREE / "extstorage" / "archipelago").iterdir()}
    assert {path.name for path in folder.iterdir()} == beside
    assert all((folder / name).resolve() == TREE / "extstorage" / "dispatch" for name in beside - {"parameters.list"})


RECORD = VolumeRecord(state="ready", uuid=None, size=1 << 30, origin="zeros", map=None, info="originstname+wëb1")
LINE = render_line(RECORD, place="snf.volumes/a")


def test_a_record_is_a_line_with_version_and_checksum_in_ascii() -> None:
    assert re.fullmatch(r'1 [0-9a-f]{32} \{"attempt":"",.*\}', LINE)
    assert LINE.isascii()
    assert parse_line(LINE, VolumeRecord, place="snf.volumes/a") == RECORD


@pytest.mark.parametrize("how", [lambda c: chr(ord(c) ^ 1), lambda c: "", lambda c: c + c])
def test_a_record_with_any_character_flipped_lost_or_doubled_is_refused(how: Callable[[str], str]) -> None:
    for at in range(len(LINE)):
        with pytest.raises(DamagedRecord, match=r"the record snf\.volumes/a "):
            parse_line(LINE[:at] + how(LINE[at]) + LINE[at + 1 :], VolumeRecord, place="snf.volumes/a")


def test_a_record_of_another_name_or_a_newer_release_is_refused() -> None:
    with pytest.raises(DamagedRecord, match=r"the record snf\.volumes/b is damaged"):
        parse_line(LINE, VolumeRecord, place="snf.volumes/b")
    with pytest.raises(DamagedRecord, match="has version 2, and this release reads 1"):
        parse_line("2 something else altogether", VolumeRecord, place="snf.volumes/a")
    other = render_line(BaseRecord(state="ready", size=1), place="snf.volumes/a")
    with pytest.raises(DamagedRecord, match="is none of this release"):
        parse_line(other, VolumeRecord, place="snf.volumes/a")


def test_a_line_of_before_adoptions_and_clusters_were_written_down_is_read_and_rendered_as_it_was() -> None:
    """A swap compares whole lines; one that came out otherwise would never be changed again."""
    assert '"formerly"' not in LINE
    assert '"cluster"' not in LINE
    assert parse_line(LINE, VolumeRecord, place="snf.volumes/a").cluster == ""
    now = dataclasses.replace(RECORD, formerly="v", cluster="one.example.org")
    assert parse_line(render_line(now, place="snf.volumes/a"), VolumeRecord, place="snf.volumes/a") == now


PLACE = PlaceRecord(
    pool="p", namespace="", user="u", fence=True, data_pool=None, features=None, object_size=1 << 20, since_s=0
)


def test_a_place_of_before_is_the_line_that_it_was() -> None:
    line = render_line(PLACE, place="snf.places/a")
    assert "since_s" not in line
    assert parse_line(line, PlaceRecord, place="snf.places/a") == PLACE
    later = dataclasses.replace(PLACE, since_s=7)
    assert parse_line(render_line(later, place="snf.places/a"), PlaceRecord, place="snf.places/a") == later
    assert is_same_place(later, PLACE)
    assert not is_same_place(later, dataclasses.replace(PLACE, user="v"))


def test_each_pool_is_looked_at_once_and_the_engines_own_by_the_engine() -> None:
    other = dataclasses.replace(PLACE, user="v")
    tenant = dataclasses.replace(PLACE, namespace="tenant")
    own = dataclasses.replace(PLACE, pool="volumes")
    places = [PLACE, other, tenant, own]
    again = dataclasses.replace(PLACE, fence=False)
    found = plan_pools([*places, again], ("volumes", ""))
    assert found == {("p", ""): [PLACE, other], ("p", "tenant"): [tenant]}
    assert set(plan_pools(places, None)) == {("p", ""), ("p", "tenant"), ("volumes", "")}


def test_a_node_without_ceph_has_nothing_elsewhere(tmp_path: Path) -> None:
    found = Elsewhere(Settings(ceph=CephSettings(conf=tmp_path / "ceph.conf")))
    assert (found.volumes(), found.sweep(), list(found.check())) == ([], [], [])
