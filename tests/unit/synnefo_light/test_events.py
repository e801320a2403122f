from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from synnefo_light import events
from synnefo_light.errors import ProtocolError
from synnefo_light.events import (
    Event,
    ImageFailed,
    ImageProgressed,
    InstanceResumed,
    StorageLevelChanged,
    drop,
    from_json,
    image_event,
    pending,
    storage_event,
    to_json,
)

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def an_event(done: int = 1) -> Event:
    return image_event(
        "image-progressed", ImageProgressed(instance="web1", step="copy", done=done, total=9), cluster="c", now=NOON
    )


def test_an_event_survives_its_json() -> None:
    assert from_json(to_json(an_event())) == an_event()


def test_what_happens_to_volumes_has_its_instance_or_its_node_as_source() -> None:
    resumed = storage_event("instance-resumed", InstanceResumed(instance="web1", reason="space"), now=NOON)
    assert resumed.source == "/1/instances/web1"
    level = StorageLevelChanged(place="/srv/x", level="warning", before="ok", free=1, total=9)
    changed = storage_event("storage-level-changed", level, now=NOON)
    assert changed.source == f"/1/nodes/{socket.gethostname()}/storage"
    assert from_json(to_json(changed)) == changed


def test_the_same_thing_has_the_same_id_and_another_has_another() -> None:
    assert an_event().id == an_event().id
    assert an_event(1).id != an_event(2).id


def test_a_type_and_its_detail_go_together() -> None:
    with pytest.raises(ValueError, match="carries ImageProgressed"):
        image_event("image-progressed", ImageFailed(instance="a", image="b", step="copy", reason="c"))


def test_a_new_detail_key_is_left_out_but_a_new_envelope_key_is_refused() -> None:
    data = json.loads(to_json(an_event()))
    data["detail"]["colour"] = "red"
    assert from_json(json.dumps(data).encode()) == an_event()
    data["colour"] = "red"
    with pytest.raises(ProtocolError, match="colour"):
        from_json(json.dumps(data).encode())


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"type":"x","detail":{}}', b'{"type":[],"detail":{}}', b"\0"])
def test_what_is_no_event_is_a_protocol_error(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        from_json(raw)


def test_dropped_events_come_back_in_order_and_nothing_else_does(tmp_path: Path) -> None:
    dropped = [drop(an_event(n), tmp_path) for n in range(5)]
    (tmp_path / ".tmp-half").write_text("{")
    (tmp_path / "README").write_text("no event")
    assert pending(tmp_path) == dropped
    assert [from_json(p.read_bytes().strip()) for p in pending(tmp_path)] == [an_event(n) for n in range(5)]


@pytest.mark.parametrize(
    ("detail", "type_", "durable"),
    [
        (events.ImageFailed(instance="web1", image="x", step="copy", reason="r"), "image-failed", True),
        (events.ImageWarned(instance="web1", task=None, text="t"), "image-warned", False),
        (events.ImageProgressed(instance="web1", step="helper"), "image-progressed", False),
    ],
)
def test_how_it_ended_waits_for_the_disk_and_how_it_goes_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detail: events.ImageDetail, type_: events.EventType, durable: bool
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("synnefo_light.files.os.fsync", synced.append)
    events.drop(events.image_event(type_, detail), tmp_path)
    assert bool(synced) is durable


def test_a_full_spool_is_an_error_and_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SPOOL_LIMIT", 10)
    for n in range(9):
        drop(an_event(n), tmp_path)
    with pytest.raises(events.SpoolFull, match="holds 9 events"):
        drop(an_event(9), tmp_path)
    end = image_event("image-failed", ImageFailed(instance="web1", image="a", step="copy", reason="b"))
    drop(end, tmp_path)  # how things ended has a share of its own
    with pytest.raises(events.SpoolFull, match="holds 10 events"):
        drop(end, tmp_path)
    assert len(pending(tmp_path)) == 10
