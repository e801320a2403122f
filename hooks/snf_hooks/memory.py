"""The NICs that this node last saw of each instance: a file of an instance, one variable a line.

    /var/lib/synnefo-light/hooks/INSTANCE

A value is written as JSON, just as Ganeti gave it: what is made of it must be the same both times.

In an instance-modify Ganeti gives the NICs that are to be, before as well as after, so what they were is known from the
operation before. It is a hint: written without waiting for the disk, forgotten when the node becomes the master or
ceases to be it (other nodes may change the NICs meanwhile) and when a hook of the instance fails, and without it an
event says that the NICs before are not known.
"""

from __future__ import annotations

import os

from snf_hooks.document import to_json
from snf_hooks.environment import COUNT_LIMIT, HookError, name, number
from snf_hooks.operations import OPERATIONS
from synnefo_light.atomic import replace_file

try:
    from _json import scanstring
except ImportError:  # a build of Python without it
    from json.decoder import scanstring  # type: ignore[attr-defined,no-redef,unused-ignore]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from snf_hooks.environment import Hook, Variables

FOLDER = "/var/lib/synnefo-light/hooks"
_LIMIT = 1 << 20
_ENCODING = ("utf-8", "surrogateescape")  # as the environment itself is read


def recall(folder: str, instance: str) -> dict[str, str] | None:
    """The NIC variables of an instance; None when they are not known, or what is written is not what we write."""
    try:
        fd = os.open(f"{folder}/{instance}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            raw = file.read(_LIMIT + 1)
        lines = raw.decode(*_ENCODING).split("\n")
        if len(raw) > _LIMIT or lines[-2:] != ["END", ""]:
            return None
        found = {key: _read(value) for key, _, value in (line.partition("=") for line in lines[:-2])}
        number(found, "INSTANCE_NIC_COUNT", COUNT_LIMIT)
    except (OSError, ValueError, HookError):
        return None
    return found


def forget_before(hook: Hook, folder: str) -> None:
    """What must be forgotten even if the hook's event cannot be left: all, where the master changes. Raises OSError."""
    if hook.operation in ("master-ip-turnup", "master-ip-turndown"):
        for entry in os.listdir(folder):
            _forget(f"{folder}/{entry}")


def forget_after_failure(hook: Hook, folder: str) -> None:
    """Forget the instance of a hook that failed: what is known of it may be no more so. Raises OSError."""
    if OPERATIONS[hook.operation][0] != "instance":
        return
    for key in ("INSTANCE_NAME", "INSTANCE_NEW_NAME"):
        try:
            instance = name(hook.before, key)
        except HookError:
            continue
        _forget(f"{folder}/{instance}")


def note(hook: Hook, folder: str) -> None:
    """Keep what a hook says of an instance's NICs for the next one. Raises OSError."""
    if OPERATIONS[hook.operation][0] != "instance":
        return
    instance = hook.before["INSTANCE_NAME"]
    if hook.removes_instance() and hook.phase == "post":
        _forget(f"{folder}/{instance}")
        return
    if hook.phase == "pre" and hook.operation in ("instance-add", "instance-modify"):
        return  # these are what is to be, and may yet fail
    if hook.operation == "instance-rename" and hook.phase == "post":
        _forget(f"{folder}/{instance}")
        instance = hook.before["INSTANCE_NEW_NAME"]
    seen = _seen(hook.after if hook.phase == "post" else hook.before)
    path = f"{folder}/{instance}"
    if recall(folder, instance) == seen:
        return
    # A power cut may leave half of it, hence the last line.
    lines = [*(f"{key}={to_json(value)}" for key, value in seen.items()), "END", ""]
    content = "\n".join(lines).encode(*_ENCODING)
    if len(content) > _LIMIT:  # it would not be read again, and what is there is of old
        _forget(path)
    else:
        replace_file(path, content, mode=0o600, durable=False)


def _seen(variables: Variables) -> dict[str, str]:
    count = number(variables, "INSTANCE_NIC_COUNT", COUNT_LIMIT)
    prefixes = tuple(f"INSTANCE_NIC{index}_" for index in range(count))
    found = {"INSTANCE_NIC_COUNT": str(count)}
    if prefixes:
        found |= {k: v for k, v in sorted(variables.items()) if k.startswith(prefixes) and k.isidentifier()}
    return found


def _read(value: str) -> str:
    """A string of JSON and nothing else. Raises ValueError."""
    if not value.startswith('"'):
        raise ValueError("no string of JSON")
    text, end = scanstring(value, 1, True)
    if end != len(value):
        raise ValueError("more than a string of JSON")
    return str(text)


def _forget(path: str) -> None:
    try:  # noqa: SIM105 (contextlib would be an import)
        os.unlink(path)
    except FileNotFoundError:
        pass
