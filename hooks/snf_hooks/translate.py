"""A hook's environment as the document of one event: pure.

The document is what synnefo_light.events.from_json reads; that module is not imported here, see README.md.
"""

from __future__ import annotations

import time

from snf_hooks import changes, views
from snf_hooks.document import fitted, to_json
from snf_hooks.environment import clean, name, number
from snf_hooks.operations import NOT_ON_MASTER, OPERATIONS, event_type
from synnefo_light.spool import event_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from snf_hooks.environment import Hook, Variables
    from snf_hooks.views import View

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_PLANNED_STATUS = {"instance-start": "up", "instance-reboot": "up", "instance-stop": "down"}
_PLANNED_BACKEND = (("minmem", "INSTANCE_MINMEM"), ("maxmem", "INSTANCE_MAXMEM"), ("vcpus", "INSTANCE_VCPUS"))


def event_from_hook(hook: Hook, *, node: str, call: str, now_ns: int, remembered: Variables | None) -> View:
    """The event that a hook leaves, as a document of at most EVENT_LIMIT bytes.

    `call` tells this call of Ganeti from any other; `remembered` are the NIC variables that this node saw last for the
    instance, of which alone an instance-modify knows the NICs before it. Raises HookError.
    """
    detail, source, identity = _instance(hook, remembered) if _is_instance(hook) else _object(hook)
    seconds, rest_ns = divmod(now_ns, 1_000_000_000)
    document = {
        "version": 1,
        # Not of `before` and `changes`: the second run of one hook remembers what the first run saw.
        "id": event_id(hook.cluster, node, hook.operation, hook.phase, hook.opcode, call, to_json(identity)),
        "type": event_type(hook.operation, hook.phase),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest_ns // 1000:06d}Z",
        "cluster": hook.cluster,
        "node": node,
        "source": source,
        "cause": {"opcode": hook.opcode or None, "phase": hook.phase, "job": None},
        "epoch": 0,
        "reconstructed": False,
        "detail": detail,
    }
    return fitted(document)


def _is_instance(hook: Hook) -> bool:
    return OPERATIONS[hook.operation][0] == "instance"


def _instance(hook: Hook, remembered: Variables | None) -> tuple[View, str, View]:
    told = views.instance(hook.before)
    before: View | None = None if hook.operation == "instance-add" else dict(told)
    if before is not None and hook.operation == "instance-modify":
        # Ganeti gives the NICs that are to be, in both phases.
        before["nics"] = views.nics(remembered) if remembered is not None else None
    after: View | None
    if hook.removes_instance():
        after = None
    elif hook.phase == "pre":
        after = _planned(hook, told)
    else:
        after = _result(hook, views.instance(hook.after))
    instance = str((after or told)["name"] if hook.phase == "post" else told["name"])
    detail = {
        "operation": hook.operation,
        "instance": instance,
        "before": before,
        "after": after,
        "changes": changes.of_instance(before, after) if before is not None and after is not None else [],
        "options": views.options(hook.before),
        "left_out": [],
    }
    return detail, f"/1/instances/{instance}", {"instance": instance, "after": after, "options": detail["options"]}


def _planned(hook: Hook, told: View) -> View:
    """The instance as it is to be, as far as the first phase tells; an instance-add and the NICs come so already."""
    after = dict(told)
    given = hook.before
    after["status"] = _PLANNED_STATUS.get(hook.operation, after["status"])
    if hook.operation == "instance-rename":
        after["name"] = name(given, "INSTANCE_NEW_NAME")
    elif hook.operation == "instance-move":
        after["primary"] = name(given, "TARGET_NODE")
    elif given.get("NEW_PRIMARY") and "True" not in (given.get("MIGRATE_CLEANUP"), given.get("FAILOVER_CLEANUP")):
        after["primary"] = name(given, "NEW_PRIMARY")
    elif hook.operation == "instance-modify":
        asked = {key: clean(given[variable]) for key, variable in _PLANNED_BACKEND if variable in given}
        after["backend"] = {**after["backend"], **asked}
    elif hook.operation == "disk-grow":
        after["disks"] = _grown(given, after["disks"])
    return after


def _grown(given: Variables, disks: list[View]) -> list[View]:
    index, amount = number(given, "DISK", len(disks) - 1), number(given, "AMOUNT", 1 << 40)
    size = amount if given.get("ABSOLUTE") == "True" else disks[index]["size"] + amount
    return [{**disk, "size": size} if disk["index"] == index else disk for disk in disks]


def _result(hook: Hook, after: View) -> View:
    """What the second phase says, where it still gives the old value put right."""
    if hook.operation == "instance-rename":
        after["name"] = name(hook.before, "INSTANCE_NEW_NAME")
    elif hook.operation == "instance-move":
        after["primary"] = name(hook.before, "TARGET_NODE")
    return after


def _object(hook: Hook) -> tuple[View, str, View]:
    about = OPERATIONS[hook.operation][0]
    given = {**hook.before, **hook.after}
    told = views.properties(given, about)
    known = hook.cluster if about == "cluster" and hook.cluster else _name(about, given)
    before: View | None = None
    after: View | None = told
    verb = hook.operation.rpartition("-")[2]
    if verb == "rename":
        old = clean(hook.before.get("OLD_NAME", hook.before.get("OP_TARGET", "")))
        known = clean(given.get("NEW_NAME", ""))
        before, after = {"name": old}, {"name": known}
        known = known if hook.phase == "post" else old
    elif verb in ("remove", "disconnect", "destroy", "turndown"):
        before, after = told, None
    elif hook.operation == "config-update":
        after = None
    differences = changes.of_mapping("property", before, after) if before is not None and after is not None else []
    for change in differences:
        change.update(kind="name", item="")
    detail = {
        "operation": hook.operation,
        "kind": about,
        "name": known,
        "before": before,
        "after": after,
        "changes": differences,
        "options": views.options(hook.before),
        "left_out": [],
    }
    return detail, _source(about, known, given), {"name": known, "before": before, "after": after}


def _name(about: str, given: Variables) -> str | None:
    """What the thing is called; Ganeti does not say which network is connected."""
    keys = {"network": ("NETWORK_NAME",), "node": ("NODE_NAME", "OP_TARGET"), "group": ("GROUP_NAME",)}
    for key in keys.get(about, ("OP_TARGET",)):
        if given.get(key):
            return clean(given[key])
    return None


def _source(about: str, known: str | None, given: Variables) -> str:
    if about == "cluster":
        return "/1/cluster"
    if known is None:
        return f"/1/groups/{_quoted(given.get('GROUP_NAME', ''))}/networks" if about == "network" else f"/1/{about}s"
    return f"/1/{about}s/{_quoted(known)}"


def _quoted(text: str) -> str:
    """A part of a path (RFC 3986, 2.1)."""
    return "".join(c if c in _SAFE else "".join(f"%{b:02X}" for b in c.encode()) for c in clean(text))


def tells(hook: Hook, *, node: str, nodes: list[str]) -> bool:
    """Whether it is on this node to tell of it: one node does, the master.

    `nodes` are the names of all nodes. Who cannot be sure to be another node than the master tells: an event twice is
    better than none.
    """
    if hook.operation in NOT_ON_MASTER:
        return True
    return _same(node, hook.master) or not any(_same(node, other) for other in nodes)


def _same(node: str, other: str) -> bool:
    """A node's own name and the one that Ganeti calls it by: one of the two may lack the domain."""
    if "." in node and "." in other:
        return node == other
    return node.partition(".")[0] == other.partition(".")[0]
