"""One node's Ganeti, without a daemon: runs functions of its backend on a disk. Started by Ganeti's own Python.

stdin: JSON with `search` (folder of providers), `state` (a folder for its logs and links), `disk` (provider, volume,
uuid, size, params) and `steps`, a list of lists. stdout: JSON, for each step what it returned or how it failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

order = json.load(sys.stdin)

from ganeti import pathutils  # type: ignore[import-not-found]  # noqa: E402

pathutils.ES_SEARCH_PATH = [order["search"]]
for name in ("LOG_ES_DIR", "DISK_LINKS_DIR", "BDEV_CACHE_DIR"):
    folder = f"{order['state']}/{name}"
    Path(folder).mkdir(parents=True, exist_ok=True)
    setattr(pathutils, name, folder)

from ganeti import backend, constants, objects  # noqa: E402
from ganeti.storage import extstorage  # type: ignore[import-not-found]  # noqa: E402

wanted = order["disk"]
disk = objects.Disk(
    dev_type=constants.DT_EXT,
    logical_id=(wanted["provider"], wanted["volume"]),
    size=wanted["size"],
    uuid=wanted["uuid"],
    mode="rw",
    params={"provider": wanted["provider"], "access": wanted["access"], **wanted["params"]},
    children=[],
    name=None,
    iv_name="disk/0",
    dynamic_params={},
)
instance = objects.Instance(name="web1", hypervisor="kvm", disks=[disk.uuid])


def snap() -> Any:
    """The disk by which Ganeti's export knows the snapshot that it has made."""
    copy = objects.Disk.FromDict(disk.ToDict())
    copy.logical_id = (wanted["provider"], wanted["volume"] + ".snap")
    return copy


def grow(amount: int, dry: bool) -> None:
    backend.BlockdevGrow(disk, amount, dry, True, False)


STEPS: dict[str, Callable[[], Any]] = {
    "create": lambda: backend.BlockdevCreate(disk, disk.size, "web1", True, "originstname+web1", False),
    "assemble": lambda: backend.BlockdevAssemble(disk, instance, True, 0),
    "shutdown": lambda: backend.BlockdevShutdown(disk),
    "find": lambda: backend.BlockdevFind(disk) is not None,
    "sizes": lambda: backend.BlockdevGetdimensions([disk]),
    "close": lambda: backend.BlockdevClose("web1", [disk]),
    "open shared": lambda: backend.BlockdevOpen("web1", [disk], False),
    "open exclusive": lambda: backend.BlockdevOpen("web1", [disk], True),
    "grow dry": lambda: grow(wanted["grow"], True),
    "grow": lambda: grow(wanted["grow"], False),
    "snapshot": lambda: backend.BlockdevSnapshot(disk, None, None),
    "open snapshot": lambda: backend.BlockdevOpen("web1", [snap()], True),
    "remove snapshot": lambda: backend.BlockdevRemove(snap()),
    "uri": lambda: backend._RecursiveFindBD(disk).GetUserspaceAccessUri("kvm"),
    "remove": lambda: backend.BlockdevRemove(disk),
    "diagnose": lambda: [list(row) for row in extstorage_facts()],
}


def extstorage_facts() -> list[tuple[Any, ...]]:
    found, made = extstorage.ExtStorageFromDisk(wanted["provider"])
    return [(found, sorted(map(list, made.supported_parameters)) if found else str(made))]


results = []
for step in order["steps"]:
    try:
        results.append(["ok", STEPS[step]()])
    except Exception as error:
        results.append(["failed", str(error)])
print(json.dumps(results, default=str))
