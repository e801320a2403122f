"""Every error that a person may see, one tree, an exit code each.

    Error                      exit
    ├── UserError                 2   the person who asked can mend it
    │   ├── UsageError           64   wrong words on the command line
    │   └── ConfigError          78   a configuration file says something we refuse
    ├── EnvironmentFault          3   this node must be mended first
    ├── HalfDone                  6   it failed after it had begun: what it was to change is neither old nor new
    └── PeerError                 4   another party misbehaved: Ganeti, a web server, the helper VM
        ├── ToolError             4   a program ended with a status we did not expect
        │   └── ToolLate          4   it did not end in time, and was killed
        └── ProtocolError         5   what came over a channel is not what was agreed

Anything else that reaches an entry point is a bug of ours and keeps its traceback (exit 70, as sysexits(3) has it).
A message is one sentence: what was asked, what is wrong with which value, what would be right.
"""

from __future__ import annotations

# What `typing` calls so, without the cost of importing it: hooks load this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_BUG = 70


class Error(Exception):
    """The base; raise one of the others."""

    exit_code = 1


class UserError(Error):
    exit_code = 2


class UsageError(UserError):
    exit_code = 64


class ConfigError(UserError):
    exit_code = 78


class EnvironmentFault(Error):
    exit_code = 3


class HalfDone(Error):
    exit_code = 6


class PeerError(Error):
    exit_code = 4


class ProtocolError(PeerError):
    exit_code = 5


class ToolError(PeerError):
    """A program that ended badly: which one, how, and the end of what it said."""

    def __init__(self, argv: Sequence[str], outcome: str, stderr: str = "") -> None:
        self.argv = tuple(argv)
        self.outcome = outcome
        self.stderr = stderr
        last = stderr.strip().splitlines()[-1:] or [""]
        super().__init__(f"{argv[0]} {outcome}" + (f": {last[0]}" if last[0] else ""))


class ToolLate(ToolError):
    def __init__(self, argv: Sequence[str], limit_s: float, stderr: str = "") -> None:
        super().__init__(argv, f"did not end within {limit_s:g} s and was killed", stderr)
