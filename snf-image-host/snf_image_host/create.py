"""One deployment with all that is told of it: the lock, the log, the journal, the events, and the sentence at its end.

`deploy.py` does the work; this module holds what surrounds it whoever asks, Ganeti or a person (`snf-image run`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from snf_image_host import deploy, journal
from snf_image_host.announcer import Announcer
from snf_image_host.channel import ConsoleLog
from snf_image_host.deploy import Deployment
from snf_image_host.interrupts import Interrupted
from snf_image_host.journal import Finished
from snf_image_host.monitor import Monitor, open_monitor
from snf_image_host.params import Parameters
from snf_image_host.plan import check_parameters
from snf_image_host.report import Account
from snf_image_host.report import path_of as report_path
from snf_image_host.reporter import Listener, Reporter
from snf_image_host.request import read_parameters
from snf_image_host.settings import Settings
from snf_image_host.sources import shown
from snf_image_host.vm import HelperImage, find_image
from synnefo_light import __version__, log
from synnefo_light.errors import EXIT_BUG, Error
from synnefo_light.ganeti import OsEnv
from synnefo_light.log import logger


class Unsuccessful(Error):
    """The last word about something that did not succeed; `__cause__` is why, a fault of ours if it is no Error."""

    def __init__(self, sentence: str, *, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def exit_code_of(error: BaseException) -> int:
    return error.exit_code if isinstance(error, Error | Interrupted) else EXIT_BUG


def installed_helper(settings: Settings) -> HelperImage:
    """Raises EnvironmentFault."""
    return find_image(settings.helper_dir, version=__version__)


def create(env: OsEnv, settings: Settings, *, remedy: str | None = None) -> Finished:
    """Deploy as `env` says. Raises Unsuccessful; then the disk is as its sentence says.

    `remedy` is what the sentence says to do, in place of Ganeti's commands.
    """
    state, console = Deployment(), ConsoleLog()
    with contextlib.ExitStack() as held:
        reporter: Reporter | None = None
        try:
            held.enter_context(journal.only_deployment(settings.run_dir, env.instance))
            log_file = _open_log(settings.log_dir, env)
            # Before the parameters are read: what is wrong with them is to be seen everywhere too.
            told = _Told(env, settings, held)
            reporter = told.reporter
            if log_file is not None:
                held.callback(_append_console, log_file, console)
            held.callback(told.leave_report, console)
            helper = installed_helper(settings)
            parameters = read_parameters(env.parameters, env.variant, settings, helper)
            told.know(parameters, helper)
            for text in parameters.warnings:
                reporter.warned(None, text)
            check_parameters(parameters, settings, helper)
            finished = deploy.create(env, parameters, settings, helper, reporter, console, state)
            reporter.finished(finished)
            return finished
        except (Exception, Interrupted) as e:
            sentence = deploy.explain(env.instance, e, state, remedy=remedy)
            if reporter is not None:
                reporter.failed(sentence)
                logger.error("instance=%s deploy failed at step=%s: %s", env.instance, reporter.step, sentence)
                logger.info("instance=%s see: snf-image report %s", env.instance, env.instance)
            raise Unsuccessful(sentence, exit_code=exit_code_of(e)) from e


class _Told:
    """Who listens to a deployment. Each may be missing; that is a line in the log."""

    def __init__(self, env: OsEnv, settings: Settings, held: contextlib.ExitStack) -> None:
        image = shown(env.parameters.get("img_id", ""))
        self._instance = env.instance
        self._announcer = Announcer(env.instance, image=image, spool=settings.spool)
        report = report_path(settings.log_dir, env.instance)
        self._account = Account(report, env.instance, image=image, parameters=env.parameters)
        self.leave_report()
        listeners: dict[str, Listener] = {"event spool": self._announcer, "report": self._account}
        with self._optional("journal"):
            writer = journal.Journal(settings.run_dir, env.instance)
            held.callback(writer.close)
            listeners["journal"] = writer.write
        self._monitor: Monitor | None = None
        if settings.progress_monitor:
            with self._optional("progress monitor"):
                self._monitor = held.enter_context(open_monitor(Path(settings.progress_monitor), env.instance))
                listeners["progress monitor"] = self._monitor
        self.reporter = Reporter(env.instance, listeners=listeners)

    def know(self, parameters: Parameters, helper: HelperImage) -> None:
        """What was not known at the beginning."""
        self._announcer.image = parameters.image
        self._account.note(image=parameters.image, helper=helper.version)
        if self._monitor is not None:
            self._monitor.names = {task.name: task.snf_image or task.name for task in helper.tasks}

    def leave_report(self, console: ConsoleLog | None = None) -> None:
        with self._optional("report"):
            self._account.write(tuple(console.lines()) if console else ())

    @contextlib.contextmanager
    def _optional(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, Error) as e:
            logger.warning("instance=%s no %s: %s", self._instance, what, e)


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
