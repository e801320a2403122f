"""The doors: the scripts that Ganeti calls, and the command `snf-image`. Only this module prints.

Ganeti shows an administrator the last 20 lines of a failed script, so the sentence that explains comes last.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from snf_image_host import accel, deploy, journal, transfer, watch
from snf_image_host.channel import ConsoleLog
from snf_image_host.deploy import Deployment
from snf_image_host.interrupts import Interrupted, signals_raise
from snf_image_host.params import PARAMETERS, Parameters, parse_parameters, render_parameters_list
from snf_image_host.plan import check_parameters
from snf_image_host.properties import PROPERTIES
from snf_image_host.reporter import Reporter, open_journal
from snf_image_host.settings import FILE, Settings, load_settings, load_variant
from snf_image_host.vm import HelperImage, find_image
from synnefo_light import __version__, log
from synnefo_light.errors import EXIT_BUG, Error, UsageError
from synnefo_light.ganeti import OsEnv, os_parameters, os_variant, parse_os_env
from synnefo_light.log import escape, logger
from synnefo_light.records import dump_json

#: Another configuration than /etc/synnefo-light/snf-image.toml; Ganeti passes no such variable, tests do.
CONFIG_VARIABLE: Final = "SNF_IMAGE_CONFIG"


def script(name: str) -> None:
    """The OS script `name` of ganeti-os-interface(7), from the process's own environment. Exits."""
    scripts: dict[str, Callable[[Mapping[str, str], Settings], int]] = {
        "create": _create,
        "import": _import,
        "export": _export,
        "rename": _rename,
        "verify": _verify,
    }
    environ = os.environ
    sys.exit(
        _guarded(lambda: scripts[name](environ, _settings(environ)), verbose=environ.get("DEBUG_LEVEL") not in _OFF)
    )


def main() -> None:
    """The command `snf-image`. Exits."""
    arguments = _arguments(sys.argv[1:])
    commands: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
        "watch": _watch,
        "accel": _accel,
        "parameters": _parameters,
        "version": _version,
    }
    sys.exit(_guarded(lambda: commands[arguments.command](_settings(os.environ), arguments), verbose=False))


_OFF: Final = (None, "", "0")


def _settings(environ: Mapping[str, str]) -> Settings:
    return load_settings(Path(environ.get(CONFIG_VARIABLE) or FILE))


def _guarded(act: Callable[[], int], *, verbose: bool) -> int:
    """Run `act`; an Error becomes its sentence and exit code, anything else our bug with its traceback."""
    log.set_up(verbose=verbose)
    try:
        with signals_raise():
            return act()
    except (Error, Interrupted) as e:
        _say(f"snf-image: {e}")
        return e.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as e:
        traceback.print_exc()
        _say(f"snf-image: a fault of snf-image itself: {type(e).__name__}: {e}")
        return EXIT_BUG


# --- what Ganeti calls


def _verify(environ: Mapping[str, str], settings: Settings) -> int:
    helper = _helper(settings)
    check_parameters(_asked(os_parameters(environ), os_variant(environ), settings, helper), settings, helper.tasks)
    return 0


def _helper(settings: Settings) -> HelperImage:
    return find_image(settings.helper_dir, version=__version__)


def _asked(given: Mapping[str, str], variant: str, settings: Settings, helper: HelperImage) -> Parameters:
    return parse_parameters(given, tasks=helper.tasks, preset=load_variant(variant, settings).parameters)


def _create(environ: Mapping[str, str], settings: Settings) -> int:
    env = parse_os_env(environ)
    state, console = Deployment(), ConsoleLog()
    with contextlib.ExitStack() as held:
        reporter: Reporter | None = None
        try:
            held.enter_context(journal.only_deployment(settings.run_dir, env.instance))
            log_file = _open_log(settings.log_dir, env)
            writer = open_journal(settings.run_dir, env.instance)
            if writer is not None:
                held.callback(writer.close)
            # Before the parameters are read: what is wrong with them is to be seen in the journal and the spool too.
            image = escape(env.parameters.get("img_id", ""))
            reporter = Reporter(env.instance, image=image, spool=settings.spool, journal=writer)
            if log_file is not None:
                held.callback(_append_console, log_file, console)
            helper = _helper(settings)
            parameters = _asked(env.parameters, env.variant, settings, helper)
            reporter.image = parameters.image
            check_parameters(parameters, settings, helper.tasks)
            reporter.finished(deploy.create(env, parameters, settings, helper, reporter, console, state))
            return 0
        except (Exception, Interrupted) as e:
            if not isinstance(e, Error | Interrupted):
                traceback.print_exc()
            sentence = deploy.explain(env.instance, e, state)
            if reporter is not None:
                logger.error("instance=%s deploy failed at step=%s", env.instance, reporter.step)
                reporter.failed(sentence)
                logger.info("instance=%s the log is %s", env.instance, settings.log_dir / f"{env.instance}.log")
            _say(f"snf-image: {sentence}")
            return e.exit_code if isinstance(e, Error | Interrupted) else EXIT_BUG


def _rename(environ: Mapping[str, str], settings: Settings) -> int:
    env = parse_os_env(environ)
    console = ConsoleLog()
    try:
        helper = _helper(settings)
        parameters = _asked(env.parameters, env.variant, settings, helper)
        done = deploy.rename(env, parameters, settings, helper, console)
    except (Error, Interrupted) as e:
        for line in console.lines()[-10:]:
            logger.info("console: %s", line)
        _say(f"snf-image: {deploy.explain_rename(env, e)}")
        return e.exit_code
    logger.info("instance=%s rename %s", env.instance, "done" if done else "left the image alone, as configured")
    return 0


def _export(environ: Mapping[str, str], settings: Settings) -> int:
    env = parse_os_env(environ)
    order = transfer.parse_transfer(environ, prefix="EXPORT")
    sent = transfer.export_disk(order)
    logger.info("instance=%s disk=%d exported bytes=%d", env.instance, order.index, sent)
    return 0


def _import(environ: Mapping[str, str], settings: Settings) -> int:
    env = parse_os_env(environ)
    order = transfer.parse_transfer(environ, prefix="IMPORT")
    copied = transfer.import_disk(order)
    logger.info("instance=%s disk=%d imported bytes=%d", env.instance, order.index, copied.received)
    return 0


def _open_log(folder: Path, env: OsEnv) -> Path | None:
    """Log to a new NAME.log as well; the former becomes NAME.log.1. None when the folder does not let us."""
    path = folder / f"{env.instance}.log"
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, folder / f"{env.instance}.log.1")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchown(fd, 0, folder.stat().st_gid)
            os.fchmod(fd, 0o640)
        finally:
            os.close(fd)
        log.set_up(verbose=env.debug > 0, file=path)
    except OSError as e:
        logger.warning("instance=%s no log at %s: %s", env.instance, path, e.strerror)
        return None
    return path


def _append_console(path: Path, console: ConsoleLog) -> None:
    logging.shutdown()
    with contextlib.suppress(OSError), open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(f"console: {line}\n" for line in console.lines())


# --- what people call


def _watch(settings: Settings, arguments: argparse.Namespace) -> int:
    view, terminal = watch.View(), sys.stdout.isatty()
    last: journal.Record | None = None
    for entry in watch.follow(settings.run_dir, arguments.instance):
        last = entry.record
        for line in view.lines(entry):
            _show(line, terminal=terminal)
    if last is None or not isinstance(last, journal.Failed | journal.Finished):
        _show(
            watch.Line(text="ended without a word: it was killed; reinstall or remove the instance"), terminal=terminal
        )
        return 1
    return 0 if isinstance(last, journal.Finished) else 1


def _show(line: watch.Line, *, terminal: bool) -> None:
    if terminal:
        width = shutil.get_terminal_size().columns - 1
        text = line.text[:width] if line.passing else line.text
        print(f"\r\033[K{text}", end="" if line.passing else "\n", flush=True)
    else:
        print(line.text, flush=True)


def _accel(settings: Settings, arguments: argparse.Namespace) -> int:
    choice = accel.choose(_helper(settings), settings, again=arguments.again)
    print(dump_json(choice).decode())
    return 0


def _parameters(settings: Settings, arguments: argparse.Namespace) -> int:
    if arguments.list:
        print(render_parameters_list(), end="")
        return 0
    for parameter in PARAMETERS:
        print(f"{parameter.name:<16} {parameter.kind}, default: {parameter.default}\n{'':<16} {parameter.summary}")
    print("\nProperties (img_properties, inst_properties):\n")
    for entry in PROPERTIES:
        status = "" if entry.status == "served" else f" [{entry.status}]"
        print(f"{entry.name}{status}: {entry.kind}; {entry.summary}")
    return 0


def _version(settings: Settings, arguments: argparse.Namespace) -> int:
    print(f"snf-image {__version__}")
    print(f"helper    {_helper(settings).version} ({settings.helper_dir})")
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        _say(f"snf-image: {message}")
        sys.exit(UsageError.exit_code)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="snf-image", description="Look after deployments of snf-image on this node.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    following = commands.add_parser("watch", help="follow the deployment of an instance")
    following.add_argument("instance", metavar="INSTANCE")
    asked = commands.add_parser("accel", help="say which accelerator the helper VM uses, and why; one JSON line")
    asked.add_argument("--again", action="store_true", help="find out anew, whatever was found before")
    table = commands.add_parser("parameters", help="list the OS parameters and image properties")
    table.add_argument("--list", action="store_true", help="in the form of Ganeti's parameters.list")
    commands.add_parser("version", help="say the versions of both halves")
    return parser.parse_args(words)


def _say(sentence: str) -> None:
    """The last word, on stderr."""
    sys.stdout.flush()
    print(sentence, file=sys.stderr, flush=True)
