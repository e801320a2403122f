"""What differs between two views of one thing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from snf_hooks.views import View

_PLAIN = (
    *(("name", "name"), ("status", "status"), ("primary", "primary"), ("os", "os")),
    ("disk-template", "disk_template"),
)


def of_instance(before: View, after: View) -> list[View]:
    """The differences, in an order that depends on nothing but them. NICs that are not known have none."""
    found = [
        change(kind, "modified", before=before[key], after=after[key])
        for kind, key in _PLAIN
        if before[key] != after[key]
    ]
    if before["secondaries"] != after["secondaries"]:
        old, new = " ".join(before["secondaries"]), " ".join(after["secondaries"])
        found.append(change("secondaries", "modified", before=old, after=new))
    if before["nics"] is not None and after["nics"] is not None:
        found += _of_list("nic", before["nics"], after["nics"])
    found += _of_list("disk", before["disks"], after["disks"])
    found += [change("tag", "removed", item=tag) for tag in before["tags"] if tag not in after["tags"]]
    found += [change("tag", "added", item=tag) for tag in after["tags"] if tag not in before["tags"]]
    found += of_mapping("backend", before["backend"], after["backend"])
    return found + of_mapping("hypervisor", before["hypervisor_parameters"], after["hypervisor_parameters"])


def of_mapping(kind: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[View]:
    found = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old != new:
            action = "added" if old is None else "removed" if new is None else "modified"
            found.append(change(kind, action, item=key, before=old, after=new))
    return found


def change(
    kind: str, action: str, *, item: str = "", field: str = "", before: str | None = None, after: str | None = None
) -> View:
    return {"kind": kind, "action": action, "item": item, "field": field, "before": before, "after": after}


def _of_list(kind: str, before: list[View], after: list[View]) -> list[View]:
    """NICs or disks are the same by UUID; without one (instances of old, Ganeti's word on a new disk) by index."""
    old, new = dict(_keyed(before)), dict(_keyed(after))
    found = [change(kind, "removed", item=key) for key in old if key not in new]
    for key, thing in new.items():
        if key not in old:
            found.append(change(kind, "added", item=key))
            continue
        # A NIC or disk that only moved up because another left did not change.
        for field in thing:
            if field != "index" and thing[field] != old[key][field]:
                was, now = _text(old[key][field]), _text(thing[field])
                found.append(change(kind, "modified", item=key, field=field, before=was, after=now))
    return found


def _keyed(things: list[View]) -> Iterator[tuple[str, View]]:
    for thing in things:
        yield thing["uuid"] or f"#{thing['index']}", thing


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)
