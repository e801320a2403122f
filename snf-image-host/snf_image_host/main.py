"""The doors: the scripts that Ganeti calls, and the command `snf-image`. Only this module prints.

Ganeti shows an administrator the last 20 lines of a failed script, so the sentence that explains comes last.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from snf_image_host.create import Unsuccessful
from snf_image_host.interrupts import Interrupted, signals_raise
from snf_image_host.scripts import SCRIPTS
from snf_image_host.settings import FILE, Settings, load_settings
from synnefo_light import log
from synnefo_light.errors import EXIT_BUG, Error, UsageError

if TYPE_CHECKING:
    import argparse

    from snf_image_host.commands import Command

#: Another configuration than /etc/synnefo-light/snf-image.toml; Ganeti passes no such variable, tests do.
CONFIG_VARIABLE: Final = "SNF_IMAGE_CONFIG"


def script(name: str) -> None:
    """The OS script `name` of ganeti-os-interface(7), from the process's own environment. Exits."""

    def act() -> int:
        SCRIPTS[name](os.environ, _settings(os.environ))
        return 0

    sys.exit(_guarded(act, verbose=os.environ.get("DEBUG_LEVEL") not in (None, "", "0")))


def main() -> None:
    """The command `snf-image`. Exits."""
    command, arguments = _parse(sys.argv[1:], _commands())
    out = _Terminal()
    sys.exit(_guarded(lambda: command.run(_settings(os.environ), arguments, out), verbose=False))


def _commands() -> Sequence[Command]:
    # Here and not above: no script of Ganeti's needs them.
    from snf_image_host.commands import (
        accel,
        convert,
        doctor,
        migrate,
        parameters,
        plan,
        report,
        run,
        tasks,
        version,
        watch,
    )

    return (plan, run, convert, watch, report, doctor, tasks, parameters, accel, migrate, version)


def _settings(environ: Mapping[str, str]) -> Settings:
    return load_settings(Path(environ.get(CONFIG_VARIABLE) or FILE))


def _guarded(act: Callable[[], int], *, verbose: bool) -> int:
    """Run `act`; an Error becomes its sentence and exit code, anything else our bug with its traceback."""
    log.set_up(verbose=verbose)
    try:
        with signals_raise():
            return act()
    except (Error, Interrupted) as e:
        if isinstance(e, Unsuccessful) and not isinstance(e.__cause__, Error | Interrupted):
            traceback.print_exception(e.__cause__)
        _say(f"snf-image: {e}")
        return e.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as e:
        traceback.print_exc()
        _say(f"snf-image: a fault of snf-image itself: {type(e).__name__}: {e}")
        return EXIT_BUG


class _Terminal:
    """Standard output: lines, of which a passing one is overwritten where it is a terminal."""

    def __init__(self) -> None:
        self._redraws = sys.stdout.isatty()

    def __call__(self, text: str, *, passing: bool = False) -> None:
        if self._redraws:
            shown = text[: shutil.get_terminal_size().columns - 1] if passing else text
            print(f"\r\033[K{shown}", end="" if passing else "\n", flush=True)
        else:
            print(text, flush=True)


def _parse(words: Sequence[str], commands: Sequence[Command]) -> tuple[Command, argparse.Namespace]:
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> None:  # type: ignore[override]
            self.print_usage(sys.stderr)
            _say(f"snf-image: {message}")
            sys.exit(UsageError.exit_code)

    parser = Parser(prog="snf-image", description="Look after deployments of snf-image on this node.")
    listed = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        command.add_arguments(listed.add_parser(command.NAME, help=command.SUMMARY, description=command.SUMMARY))
    arguments = parser.parse_args(words)
    return {c.NAME: c for c in commands}[arguments.command], arguments


def _say(sentence: str) -> None:
    """The last word, on stderr."""
    sys.stdout.flush()
    print(sentence, file=sys.stderr, flush=True)
