"""Logging for the operator at 3 a.m.: one line an action, `thing act outcome`, to stderr or to syslog.

INFO is one line per action asked of us, DEBUG every command, WARNING means that a person should look.
A secret is a `Secret`: whatever formats it gets `***`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

logger = logging.getLogger("synnefo_light")

_UNPRINTABLE = {n: f"\\x{n:02x}" for n in (*range(0x20), *range(0x7F, 0xA0)) if n != 0x09}
# Unicode's own ways to move or hide text on a terminal: direction overrides and line separators.
_UNPRINTABLE |= {n: f"\\u{n:04x}" for n in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))}


class Secret:
    """A string that does not show itself; `reveal()` where it is really needed."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)


def escape(text: str, *, limit: int = 400) -> str:
    """Hostile text made fit for a log or a terminal: control characters as \\xNN, cut at `limit` characters."""
    shown = text[:limit].translate(_UNPRINTABLE)
    if not shown.isascii():  # half a surrogate pair is no character: nothing can print or keep it
        shown = shown.encode("utf-8", "backslashreplace").decode()
    return shown if len(text) <= limit else f"{shown}[{len(text) - limit} more]"


def set_up(*, verbose: bool = False, file: Path | None = None, syslog: str | None = None) -> None:
    """Log to stderr, and to `file` or to syslog under the name `syslog` too. A second call replaces the first."""
    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    line = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        handlers.append(logging.FileHandler(file, encoding="utf-8", errors="backslashreplace"))
    if syslog is not None and Path("/dev/log").exists():
        # Brings pickle and sockets, which the helper VM should not wait for: it may start in emulation.
        from logging.handlers import SysLogHandler

        to_syslog = SysLogHandler("/dev/log", facility=SysLogHandler.LOG_DAEMON)
        to_syslog.ident = f"{syslog}: "
        handlers.append(to_syslog)
    for handler in handlers:
        handler.setFormatter(line)
        logger.addHandler(handler)
