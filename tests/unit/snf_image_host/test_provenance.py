"""What the store is told of a copy, and what happens when it cannot be told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from snf_image_host import provenance
from snf_image_host.params import Parameters, parse_parameters
from snf_image_host.reporter import Reporter
from snf_image_host.settings import Settings
from snf_image_host.sources.store import StoredImage, Way

from synnefo_light.errors import EnvironmentFault
from synnefo_light.ganeti import OsEnv, parse_os_env
from synnefo_light.log import logger
from tests.deployments import environment
from tests.task_list import ORDER
from tests.unit.snf_image_host.test_store_images import stored

UUID = "efa8d6e0-c062-4b14-b829-467e6499f266"
CLONE = Way(volume="v", why="it is one")
COPY = Way(volume=None, why="it is none")
SETTINGS = Settings(snf_store="/bin/sh")  # some program that is there


def env(tmp_path: Path, uuid: str = UUID) -> OsEnv:
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    return parse_os_env(environment("create", instance="web1", disk=tmp_path / "disk", parameters={}, DISK_0_UUID=uuid))


def of(image: str) -> Parameters:
    given = {"img_id": image} | ({} if image.startswith("store:") else {"img_format": "diskdump"})
    return parse_parameters(given, tasks=ORDER, stored=stored() if image.startswith("store:") else None)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[StoredImage | None]:
    told: list[StoredImage | None] = []

    def note(uuid: str, image: StoredImage | None, settings: Settings) -> None:
        assert uuid == UUID
        told.append(image)

    monkeypatch.setattr(provenance, "note_copy", note)
    return told


def tell(environment: OsEnv, image: str, way: Way | None, settings: Settings = SETTINGS) -> Reporter:
    reporter = Reporter("web1", listeners={})
    provenance.forget(way, environment, of(image), settings)
    provenance.remember(way, environment, of(image), settings, reporter)
    return reporter


def test_before_a_copy_nobody_knows_and_after_it_the_image_of_the_store_is_known(
    told: list[StoredImage | None], tmp_path: Path
) -> None:
    tell(env(tmp_path), "store://debian-12", COPY)
    assert told == [None, stored()]
    tell(env(tmp_path), "local://x.raw", None)
    assert told == [None, stored(), None]


def test_of_a_clone_of_no_copy_and_of_a_disk_without_a_uuid_nothing_is_told(
    told: list[StoredImage | None], tmp_path: Path
) -> None:
    tell(env(tmp_path), "store://debian-12", CLONE)
    tell(env(tmp_path), "null", None)
    tell(env(tmp_path, ""), "local://x.raw", None)
    tell(env(tmp_path), "local://x.raw", None, Settings(snf_store="snf-store-that-is-not-there"))
    assert told == []


def test_a_store_that_does_not_answer_stops_only_the_copy_of_its_own_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def down(uuid: str, image: StoredImage | None, settings: Settings) -> None:
        raise EnvironmentFault("Ceph is down")

    monkeypatch.setattr(provenance, "note_copy", down)
    monkeypatch.setattr(logger, "propagate", True)
    with pytest.raises(EnvironmentFault, match="Ceph is down"):
        provenance.forget(COPY, env(tmp_path), of("store://debian-12"), SETTINGS)
    with caplog.at_level(logging.INFO):
        tell(env(tmp_path), "local://x.raw", None)
    assert "the store was not told that disk 0 is copied onto: Ceph is down" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        reporter = Reporter("web1", listeners={})
        provenance.remember(COPY, env(tmp_path), of("store://debian-12"), SETTINGS, reporter)
    assert "snapshots of disk 0 will have no properties of the image: Ceph is down" in caplog.text
