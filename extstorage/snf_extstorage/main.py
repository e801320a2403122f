"""The doors: the scripts that Ganeti calls, and the command `snf-store`. Only this module prints.

Ganeti shows an administrator the last 20 lines of a failed script, so the sentence that explains comes last. It reads
the standard output of `attach` alone; nothing else may be on it, so everything else goes to stderr.

A script is called several times for each thing that Ganeti does, so what one action does not need is not imported.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from snf_extstorage.provider import refuse_unknown
from snf_extstorage.providers import provider_module
from synnefo_light import ganeti, log
from synnefo_light.errors import EXIT_BUG, EnvironmentFault, Error, UsageError
from synnefo_light.ganeti import CreateEnv, GrowEnv, OpenEnv, SetInfoEnv, SnapshotEnv, VolumeEnv
from synnefo_light.log import logger

PARSERS: Final[Mapping[str, Callable[[Mapping[str, str]], VolumeEnv]]] = {
    "create": ganeti.parse_create_env,
    "remove": ganeti.parse_volume_env,
    "grow": ganeti.parse_grow_env,
    "attach": ganeti.parse_volume_env,
    "detach": ganeti.parse_volume_env,
    "setinfo": ganeti.parse_set_info_env,
    "snapshot": ganeti.parse_snapshot_env,
    "open": ganeti.parse_open_env,
    "close": ganeti.parse_volume_env,
}


def script(name: str, provider: str) -> None:
    """The script `name` of ganeti-extstorage-interface(7), from the process's own environment. Exits.

    Ganeti passes on the environment and umask of its daemon; of these nothing is relied on.
    """
    os.umask(0o077)
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    log.set_up()
    sys.exit(_guarded(lambda: act(name, provider, os.environ)))


def act(name: str, provider: str, environ: Mapping[str, str]) -> str:
    """One action; what is to be on stdout. Raises Error."""
    if name == "verify":  # of a disk that need not exist; Ganeti wants the script to be there, and has not called it
        refuse_unknown(ganeti.parse_parameters(environ), provider_module(provider).PARAMETERS, provider=provider)
        return ""
    if name not in PARSERS:
        raise UsageError(f"{name} is not a script of an ExtStorage provider; there are {', '.join(PARSERS)}, verify")
    began = time.monotonic()
    output = _act(name, provider, environ)
    words = ["volume=" + environ["VOL_NAME"], name, *output.split(), f"{time.monotonic() - began:.3f}s"]
    logger.info("%s", " ".join(words))
    return output


def _act(name: str, provider: str, environ: Mapping[str, str]) -> str:
    # The environment is judged before anything is opened.
    env = PARSERS[name](environ)
    module = provider_module(provider)
    if isinstance(env, CreateEnv):
        refuse_unknown(env.params, module.PARAMETERS, provider=provider)
    acting = module.provider(env.params)
    match env:
        case CreateEnv():
            acting.create(env)
        case GrowEnv():
            acting.grow(env)
        case OpenEnv():
            acting.open(env)
        case SetInfoEnv():
            acting.set_info(env)
        case SnapshotEnv():
            acting.snapshot(env)
        case _ if name == "attach":
            return acting.attach(env).stdout()
        case _:
            {"detach": acting.detach, "remove": acting.remove, "close": acting.close}[name](env)
    return ""


def command() -> None:
    """The command `snf-store`. Exits."""
    from snf_extstorage.commandline import parse
    from snf_extstorage.settings import load_settings

    log.set_up()

    def run() -> str:
        chosen, arguments = parse(sys.argv[1:])
        sys.exit(chosen.run(load_settings(arguments.config), arguments, lambda text: print(text, flush=True)))

    sys.exit(_guarded(run, program="snf-store"))


def _guarded(run: Callable[[], str], *, program: str = "snf-extstorage") -> int:
    """Run it and print what it says; an Error becomes its sentence and exit code, anything else is our bug."""
    try:
        print(run(), end="", flush=True)
        return 0
    except Error as e:
        code, sentence = e.exit_code, str(e)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as e:
        # What the storage says in the middle of our own reads and writes; no operation goes on after one.
        where = f" at {e.filename}" if e.filename else ""
        code, sentence = EnvironmentFault.exit_code, f"the storage said {e.strerror!r}{where}; nothing was acknowledged"
    except Exception as e:
        import traceback

        traceback.print_exc()
        code, sentence = EXIT_BUG, f"a fault of its own: {type(e).__name__}: {e}"
    print(f"{program}: {sentence}", file=sys.stderr, flush=True)
    return code
