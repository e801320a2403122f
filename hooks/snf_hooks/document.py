"""An event's document as JSON, in the contract's canonical form, and made to fit into what one event may have.

The standard library's `json` takes as long to import as all else that a hook does together (it brings `re`), so the
writer is here: it escapes by json's own C function, and the tests compare it with `json` byte for byte.
"""

from __future__ import annotations

from synnefo_light.spool import EVENT_LIMIT

try:
    from _json import encode_basestring
except ImportError:  # a build of Python without it
    from json.encoder import py_encode_basestring as encode_basestring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from snf_hooks.views import View


def to_json(value: object) -> str:
    """Sorted keys, no blanks, no escapes but those that JSON asks for."""
    if isinstance(value, str):
        return str(encode_basestring(value))
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(key)}:{to_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(to_json, value)) + "]"
    raise TypeError(f"a {type(value).__name__} has no place in an event")


def to_bytes(document: View) -> bytes:
    return to_json(document).encode() + b"\n"


def fitted(document: View, limit: int = EVENT_LIMIT) -> View:
    """The document, less what makes it longer than an event may be; `left_out` names that.

    Users choose tags, up to 4096 of 128 characters: they must not be able to keep an event from being told.
    """
    for what, leave_out in _STEPS:
        if len(to_bytes(document)) <= limit:
            break
        detail = leave_out(document["detail"])
        document = {**document, "detail": {**detail, "left_out": [*detail["left_out"], what]}}
    return document


def _without_tags(detail: View) -> View:
    sides = {}
    for side in ("before", "after"):
        view = detail[side]
        if view is not None:
            view = {key: value for key, value in view.items() if not key.endswith("tags")}
            if view.get("nics"):
                view["nics"] = [{**nic, "network_tags": []} for nic in view["nics"]]
        sides[side] = view
    kept = [c for c in detail["changes"] if c["kind"] != "tag" and c["field"] != "network_tags"]
    return {**detail, **sides, "changes": kept}


def _without_before(detail: View) -> View:
    return {**detail, "before": None}


def _without_after(detail: View) -> View:
    return {**detail, "after": None, "changes": []}


def _without_options(detail: View) -> View:
    return {**detail, "options": {}}


_STEPS = (
    *(("tags", _without_tags), ("before", _without_before), ("after", _without_after)),
    ("options", _without_options),
)
