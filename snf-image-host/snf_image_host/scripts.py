"""The scripts of ganeti-os-interface(7): what Ganeti calls, each from the process's environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from snf_image_host import deploy, transfer
from snf_image_host.channel import ConsoleLog
from snf_image_host.create import Unsuccessful, create, exit_code_of, installed_helper
from snf_image_host.interrupts import Interrupted
from snf_image_host.request import read_parameters, verify_parameters
from snf_image_host.settings import Settings
from synnefo_light.errors import Error
from synnefo_light.ganeti import os_parameters, os_variant, parse_os_env
from synnefo_light.log import logger

Environ = Mapping[str, str]


def _verify(environ: Environ, settings: Settings) -> None:
    helper = installed_helper(settings)
    verify_parameters(os_parameters(environ), os_variant(environ), settings, helper)


def _create(environ: Environ, settings: Settings) -> None:
    create(parse_os_env(environ), settings)


def _rename(environ: Environ, settings: Settings) -> None:
    env = parse_os_env(environ)
    console = ConsoleLog()
    try:
        helper = installed_helper(settings)
        parameters = read_parameters(env.parameters, env.variant, settings, helper, image_needed=False)
        done = deploy.rename(env, parameters, settings, helper, console)
    except (Error, Interrupted) as e:
        for line in console.lines()[-10:]:
            logger.info("console: %s", line)
        raise Unsuccessful(deploy.explain_rename(env, e), exit_code=exit_code_of(e)) from e
    logger.info("instance=%s rename %s", env.instance, "done" if done else "left the image alone, as configured")


def _export(environ: Environ, settings: Settings) -> None:
    env = parse_os_env(environ)
    order = transfer.parse_transfer(environ, prefix="EXPORT")
    sent = transfer.export_disk(order)
    logger.info("instance=%s disk=%d exported bytes=%d", env.instance, order.index, sent)


def _import(environ: Environ, settings: Settings) -> None:
    env = parse_os_env(environ)
    order = transfer.parse_transfer(environ, prefix="IMPORT")
    copied = transfer.import_disk(order)
    logger.info("instance=%s disk=%d imported bytes=%d", env.instance, order.index, copied.received)


#: By the name that Ganeti calls. Each raises Error.
SCRIPTS: Final[Mapping[str, Callable[[Environ, Settings], None]]] = {
    "create": _create,
    "import": _import,
    "export": _export,
    "rename": _rename,
    "verify": _verify,
}
