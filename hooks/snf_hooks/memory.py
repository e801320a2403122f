"""The NICs that this node last saw of each instance: a file of an instance, one variable a line.

    /var/lib/synnefo-light/hooks/INSTANCE

In an instance-modify Ganeti gives the NICs that are to be, before as well as after, so what they were is known from the
operation before. It is a hint: written without waiting for the disk, forgotten when the node becomes the master (other
nodes may have changed the NICs meanwhile), and without it an event says that the NICs before are not known.
"""

from __future__ import annotations

import os

from snf_hooks.environment import COUNT_LIMIT, clean, number
from snf_hooks.operations import OPERATIONS
from synnefo_light.atomic import replace_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from snf_hooks.environment import Hook, Variables

FOLDER = "/var/lib/synnefo-light/hooks"
_LIMIT = 256 << 10


def recall(folder: str, instance: str) -> dict[str, str] | None:
    """The NIC variables of an instance; None when they are not known, or what is written is not what we write."""
    try:
        fd = os.open(f"{folder}/{instance}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            raw = file.read(_LIMIT + 1)
        text = raw.decode()
    except (OSError, ValueError):
        return None
    if len(raw) > _LIMIT or not text.endswith("END\n"):
        return None
    pairs = (line.partition("=") for line in text.splitlines()[:-1])
    found = {key: value for key, _, value in pairs}
    return found if found.get("INSTANCE_NIC_COUNT", "").isdecimal() else None


def note(hook: Hook, folder: str) -> None:
    """Keep what a hook says of an instance's NICs for the next one. Raises OSError."""
    if hook.operation == "master-ip-turnup":
        for entry in os.listdir(folder):
            _forget(f"{folder}/{entry}")
    if OPERATIONS[hook.operation][0] != "instance":
        return
    instance = hook.before["INSTANCE_NAME"]
    if hook.operation == "instance-remove" and hook.phase == "post":
        _forget(f"{folder}/{instance}")
        return
    if hook.phase == "pre" and hook.operation in ("instance-add", "instance-modify"):
        return  # these are what is to be, and may yet fail
    if hook.operation == "instance-rename" and hook.phase == "post":
        _forget(f"{folder}/{instance}")
        instance = hook.before["INSTANCE_NEW_NAME"]
    content = _text(hook.after if hook.phase == "post" else hook.before)
    path = f"{folder}/{instance}"
    if recall(folder, instance) != _parsed(content):
        replace_file(path, content.encode(), mode=0o600, durable=False)


def _text(variables: Variables) -> str:
    """A power cut may leave half of it, hence the last line."""
    count = number(variables, "INSTANCE_NIC_COUNT", COUNT_LIMIT)
    prefixes = tuple(f"INSTANCE_NIC{index}_" for index in range(count))
    lines = [f"INSTANCE_NIC_COUNT={count}"]
    lines += [
        f"{key}={' '.join(map(clean, value.split(' '))) if key.endswith('_TAGS') else clean(value)}"
        for key, value in sorted(variables.items())
        if prefixes and key.startswith(prefixes) and key.isidentifier()
    ]
    return "\n".join([*lines, "END", ""])


def _parsed(content: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in content.splitlines()[:-1])}


def _forget(path: str) -> None:
    try:  # noqa: SIM105 (contextlib would be an import)
        os.unlink(path)
    except FileNotFoundError:
        pass
