"""The environment of a hook, parsed once: which hook it is, and the variables of before and after.

What a user chose (tags, names of NICs and disks) must never keep an event from being told, so such text is made fit to
print and cut. What Ganeti itself makes (counts, sizes, the hook's name) is refused when it is not as Ganeti makes it.
"""

from __future__ import annotations

from snf_hooks.operations import OPERATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Variables = Mapping[str, str]

#: Ganeti allows 8 NICs and 16 disks.
COUNT_LIMIT = 64
TEXT_LIMIT = 256
NAME_LIMIT = 255
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_DIGITS = frozenset("0123456789")


class HookError(Exception):
    """The environment is not one that Ganeti makes; the message names the variable."""


class Hook:
    """Which hook runs, and Ganeti's variables without their prefixes. Not changed after it was made."""

    __slots__ = ("after", "before", "cluster", "data", "master", "opcode", "operation", "phase")

    def __init__(self, environ: Variables) -> None:
        version = environ.get("GANETI_HOOKS_VERSION", "")
        if version != "2":
            raise HookError(f"GANETI_HOOKS_VERSION is {shown(version)}, and version 2 is understood")
        self.operation = environ.get("GANETI_HOOKS_PATH", "")
        self.phase = environ.get("GANETI_HOOKS_PHASE", "")
        if self.operation not in OPERATIONS:
            raise HookError(f"GANETI_HOOKS_PATH is {shown(self.operation)}, which is no hook known here")
        if self.phase not in OPERATIONS[self.operation][2]:
            raise HookError(f"GANETI_HOOKS_PHASE is {shown(self.phase)}, which {self.operation} does not have")
        self.before = {k[7:]: v for k, v in environ.items() if k.startswith("GANETI_") and k[7:12] != "POST_"}
        self.after = {k[12:]: v for k, v in environ.items() if k.startswith("GANETI_POST_")}
        self.opcode = clean(self.before.get("OP_CODE", ""), 64)
        self.cluster = clean(self.before.get("CLUSTER", ""))
        self.master = clean(self.before.get("MASTER", ""))
        self.data = self.before.get("DATA_DIR", "")
        if self.operation.startswith("master-ip-") and not self.master:
            # RunLocalHooks of Ganeti's backend.py (3.0, 3.1) gives names one place off: the cluster's as the type of
            # the object, the master's as the cluster.
            self.cluster, self.master = clean(self.before.get("OBJECT_TYPE", "")), self.cluster

    def removes_instance(self) -> bool:
        """Whether the instance is gone afterwards. An export may remove it, and no instance-remove runs then."""
        asked = self.operation == "instance-export" and self.before.get("REMOVE_INSTANCE") == "True"
        return asked or self.operation == "instance-remove"


def name(variables: Variables, key: str) -> str:
    """A name of an instance or a node, as DNS has them. Raises HookError."""
    value = variables.get(key, "")
    if not value or len(value) > NAME_LIMIT or value[0] in ".-" or not _NAME_CHARACTERS.issuperset(value):
        raise HookError(f"{key} is {shown(value)}, which is no name of an instance or a node")
    return value


def number(variables: Variables, key: str, limit: int) -> int:
    """A whole number of at most `limit`. Raises HookError."""
    value = variables.get(key, "")
    if not value or len(value) > 19 or not _DIGITS.issuperset(value) or int(value) > limit:
        raise HookError(f"{key} is {shown(value)}, which is no number up to {limit}")
    return int(value)


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    """Text that somebody chose: what cannot be printed as escapes, cut at `limit` characters."""
    if len(text) > limit:
        text = f"{text[:limit]}[{len(text) - limit} more]"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def words(text: str) -> list[str]:
    """A list that Ganeti joined by spaces, in an order that says something: Ganeti's own has none."""
    return sorted(clean(word) for word in text.split(" ") if word)


def shown(value: str) -> str:
    return repr(clean(value, 80))
