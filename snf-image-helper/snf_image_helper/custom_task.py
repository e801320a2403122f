"""Run the administrator's own program in the image; bound its time, its words, and what it sees of the VM."""

from __future__ import annotations

from collections.abc import Mapping

from snf_image_helper.image import ImageError
from synnefo_light.log import logger
from synnefo_light.run import PATH, Completed, Runner, outcome

TIMEOUT_S = 600.0
LOGGED_LINES, LINE_LENGTH = 200, 400
WORDS_LIMIT = 256 << 10  # of each output: all of it, as text and lines, would take the VM's memory
ANY = range(-64, 256)
#: See `jail`: the namespaces are made by unshare(1), whose --kill-child ends all that is in them when it ends.
UNSHARE = (
    *("/usr/bin/unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"),
    *("--net", "--ipc", "--uts", "--cgroup"),
)
PYTHON = ("/usr/bin/python3.11", "-I", "-S", "-B", "-c", "from snf_image_helper.jail import main; main()")


def run_script(runner: Runner, script: bytes, environment: Mapping[str, str], root: str) -> None:
    """Raises ImageError when it does not end well, with its last words, and ToolError when it takes too long."""
    done = runner(
        (*UNSHARE, *PYTHON, root), stdin=script, ok=ANY, timeout_s=TIMEOUT_S, env={"PATH": PATH, **environment}
    )
    lines = printable(done)
    for line in lines[:LOGGED_LINES]:
        logger.info("custom task: %s", line)
    if len(lines) > LOGGED_LINES:
        logger.info("custom task: and more lines")
    if done.returncode != 0:
        last = lines[-1] if lines else "it said nothing"
        raise ImageError(f"the custom task {outcome(done.returncode)}: {last}")


def printable(done: Completed) -> list[str]:
    """The begin of the output and the end of the errors, without empty lines and what acts on a terminal."""
    text = (done.stdout[:WORDS_LIMIT] + b"\n" + done.stderr[-WORDS_LIMIT:]).decode("utf-8", "replace")
    lines = ("".join(c if c.isprintable() else " " for c in line).rstrip()[:LINE_LENGTH] for line in text.splitlines())
    return [line for line in lines if line]
