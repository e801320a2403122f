"""The attacks of tests/attack, and long runs of other tests, in node 1, counted. They know nothing of a lab."""

from __future__ import annotations

import json
from dataclasses import dataclass

from snf_lab import suite
from snf_lab.lab import Lab
from snf_lab.progress import run_logged
from synnefo_light.errors import PeerError

TIMEOUT_S = 6 * 3600.0
ATTACKS = "tests.attack.torture"
#: What has a module of its own, with the same options and the same figures.
OTHERS = {
    "storage-fio": "tests.real.snf_extstorage.fio_rounds",
    "storage-models": "tests.real.snf_extstorage.model_rounds",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    line: str  # JSON, as it was printed
    passed: int
    total: int


def parse_figures(output: str) -> Figures:
    """The last line. Raises PeerError when there is none that can be read."""
    lines = output.splitlines()
    try:
        found = json.loads(lines[-1])
        return Figures(line=lines[-1], passed=int(found["attacks_passed"]), total=int(found["attacks_total"]))
    except (IndexError, ValueError, KeyError, TypeError):
        last = lines[-1] if lines else "nothing"
        raise PeerError(f"the attacks ended without their figures, with {last!r}") from None


def plan_words(name: str) -> list[str]:
    return ["-m", OTHERS[name]] if name in OTHERS else ["-m", ATTACKS, name]


def run_torture(lab: Lab, name: str, *, count: int | None = None, jobs: int = 2) -> Figures:
    """Run a group of attacks in node 1 of a lab that is up. Raises PeerError when they could not be run."""
    node, log = lab.node(1), lab.state.log / "torture.log"
    suite.install_tests(node, progress=lab.progress, log=log)
    words = [*plan_words(name), "--jobs", str(jobs)]
    words += ["--count", str(count)] if count is not None else []
    # 1 says that an attack did not pass, which the figures say too.
    script = f'cd {suite.NODE_TREE} && {{ /usr/bin/python3 "$@" || test $? = 1; }}'
    rooms = (".", "extstorage", "snf-image-host", "snf-image-helper")
    env = {"PYTHONPATH": ":".join(f"{suite.NODE_TREE}/{room}" for room in rooms), "PYTHONDONTWRITEBYTECODE": "1"}
    with lab.progress.step(f"attacks: {name}", log=log) as step:
        log.unlink(missing_ok=True)
        run_logged(node.enter(["sh", "-c", script, "sh", *words], env=env, tied=True), log=log, timeout_s=TIMEOUT_S)
        figures = parse_figures(log.read_text(errors="replace"))
        step.note = f"{figures.passed} of {figures.total} passed; {log} tells of each"
    return figures
