"""One deployment with all that is told of it: the lock, the log, the journal, the events, and the sentence at its end.

`deploy.py` does the work; this module holds what surrounds it whoever asks, Ganeti or a person (`snf-image run`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from snf_image_host import deploy, journal
from snf_image_host.channel import ConsoleLog
from snf_image_host.deploy import Deployment
from snf_image_host.interrupts import Interrupted
from snf_image_host.journal import Finished
from snf_image_host.plan import check_parameters
from snf_image_host.reporter import Reporter, open_journal
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


def create(env: OsEnv, settings: Settings) -> Finished:
    """Deploy as `env` says. Raises Unsuccessful; then the disk is as its sentence says."""
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
            image = shown(env.parameters.get("img_id", ""))
            reporter = Reporter(env.instance, image=image, spool=settings.spool, journal=writer)
            if log_file is not None:
                held.callback(_append_console, log_file, console)
            helper = installed_helper(settings)
            parameters = read_parameters(env.parameters, env.variant, settings, helper)
            reporter.image = parameters.image
            check_parameters(parameters, settings, helper)
            finished = deploy.create(env, parameters, settings, helper, reporter, console, state)
            reporter.finished(finished)
            return finished
        except (Exception, Interrupted) as e:
            sentence = deploy.explain(env.instance, e, state)
            if reporter is not None:
                logger.error("instance=%s deploy failed at step=%s", env.instance, reporter.step)
                reporter.failed(sentence)
                logger.info("instance=%s the log is %s", env.instance, settings.log_dir / f"{env.instance}.log")
            raise Unsuccessful(sentence, exit_code=exit_code_of(e)) from e


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
