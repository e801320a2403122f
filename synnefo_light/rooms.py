"""A program of another room, asked by a room: rooms never import each other, and its errors become ours.

A program of this product ends with the exit code of an error of errors.py and says "NAME: sentence" in its last line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from synnefo_light.errors import (
    ConfigError,
    EnvironmentFault,
    Error,
    HalfDone,
    PeerError,
    ProtocolError,
    ToolError,
    UsageError,
    UserError,
)
from synnefo_light.log import escape
from synnefo_light.run import Completed, Runner, run

_ERRORS: Final[dict[int, type[Error]]] = {
    kind.exit_code: kind
    for kind in (UserError, EnvironmentFault, PeerError, ProtocolError, HalfDone, UsageError, ConfigError)
}
_LINE_LIMIT: Final = 2000


def ask(
    argv: Sequence[str | Path],
    *,
    package: str,
    timeout_s: float,
    ok: Sequence[int] = (0,),
    runner: Runner = run,
) -> Completed:
    """Run a program of another room; `package` has it. Raises the Error that it ended with, with its sentence.

    A program that is not there is an EnvironmentFault that names the package.
    """
    try:
        return check(runner(argv, timeout_s=timeout_s, ok=range(-64, 256)), ok=ok)
    except ToolError as e:
        raise absent(e, package) from e


def absent(error: ToolError, package: str) -> Error:
    """What is to be said of a program that could not be run."""
    if error.outcome != "was not found":
        return error
    return EnvironmentFault(f"{error.argv[0]} is not on this node; install the package {package}")


def check(done: Completed, *, ok: Sequence[int] = (0,)) -> Completed:
    """The same. Raises the Error that the program ended with."""
    if done.returncode in ok:
        return done
    name = Path(done.argv[0]).name
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    sentence = escape(lines[-1], limit=_LINE_LIMIT).removeprefix(f"{name}: ") if lines else ""
    kind = _ERRORS.get(done.returncode)
    if kind is None or not sentence:
        raise ToolError(done.argv, f"ended with {done.returncode}", sentence)
    raise kind(sentence)
