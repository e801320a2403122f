"""`./lab test`: the whole test suite, which is also what CI runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from snf_lab import demo, host_packages, suite
from snf_lab.command import Command
from snf_lab.lab import Lab
from snf_lab.suite import Counts

STAGES = ("lint", "pure", "packages", "node", "cluster", "trixie")
#: Not run unless named.
LONG = ("long", "volumes")


def arguments(parser: argparse.ArgumentParser) -> None:
    known = f"only these: {', '.join(STAGES)} (all), or {', '.join(LONG)}"
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=known)
    parser.add_argument("--keep", action="store_true", help="leave the lab up afterwards")


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    stages: Sequence[str] = arguments.stages or STAGES
    unknown = [stage for stage in stages if stage not in RUNNERS]
    if unknown:
        lab.progress.say(f"stage {unknown[0]!r} is unknown; the stages are {', '.join(RUNNERS)}")
        return 64
    counts = Counts()
    try:
        for stage in (stage for stage in RUNNERS if stage in stages):
            counts += RUNNERS[stage](lab)
    finally:
        if not arguments.keep:
            lab.down()
        lab.progress.say(f"{counts.passed} passed, {counts.failed} failed")
    return 0


def lint(lab: Lab) -> Counts:
    prepare(lab)
    venv = suite.ensure_venv(lab.state, progress=lab.progress, log=logs(lab) / "venv.log")
    suite.run_lint(venv, progress=lab.progress, log=logs(lab) / "lint.log")
    return Counts()


def pure(lab: Lab) -> Counts:
    prepare(lab)
    venv = suite.ensure_venv(lab.state, progress=lab.progress, log=logs(lab) / "venv.log")
    log = logs(lab) / "pure.log"
    python = [venv / "bin" / "python"]
    return suite.run_pytest(
        python, suite.PURE, title="unit, golden and meta tests", progress=lab.progress, log=log, timeout_s=600
    )


def packages(lab: Lab) -> Counts:
    prepare(lab)
    built = lab.build_packages()
    log = logs(lab) / "lintian.log"
    with lab.progress.step("lintian", log=log):
        suite.run_lintian(built, log=log)
    venv = suite.ensure_venv(lab.state, progress=lab.progress, log=logs(lab) / "venv.log")
    return suite.run_pytest(
        [venv / "bin" / "python"],
        [suite.IMAGE_BUILD],
        title="build the helper VM's image twice",
        progress=lab.progress,
        log=logs(lab) / "image-build.log",
        timeout_s=900,
    )


def node(lab: Lab) -> Counts:
    lab.ensure_up(nodes=1, release="bookworm")
    return suite.run_in_node(lab.node(1), progress=lab.progress, logs=logs(lab), timeout_s=2400)


def cluster(lab: Lab) -> Counts:
    """A lab with a Ceph has no directory of volumes any more, so it is made anew."""
    if lab.config is not None and lab.config.storage != "directory":
        lab.down()
    lab.ensure_up(nodes=1, release="bookworm")
    return _drive(lab, suite.CLUSTER, title="cluster tests", timeout_s=2400)


def long(lab: Lab) -> Counts:
    lab.ensure_up(nodes=1, release="bookworm")
    tests = suite.LONG_IN_NODE
    return suite.run_in_node(lab.node(1), progress=lab.progress, logs=logs(lab), timeout_s=2400, tests=tests)


def volumes(lab: Lab) -> Counts:
    """In a lab of the release that is there, else of Debian 12. One with a Ceph has no directory any more."""
    release = lab.config.release if lab.config else "bookworm"
    if lab.config is not None and lab.config.storage != "directory":
        lab.down()
    lab.ensure_up(nodes=3, release=release)
    return _drive(lab, suite.VOLUMES, title="volumes on both engines", timeout_s=5400)


def _drive(lab: Lab, what: Sequence[str], *, title: str, timeout_s: float) -> Counts:
    """Tests that run on this machine and give a lab's nodes their orders."""
    prepare(lab)
    venv = suite.ensure_venv(lab.state, progress=lab.progress, log=logs(lab) / "venv.log")
    log = logs(lab) / f"{title.replace(' ', '-')}.log"
    return suite.run_pytest(
        [venv / "bin" / "python"],
        [*what, "--durations=0", "--durations-min=2"],
        title=title,
        progress=lab.progress,
        log=log,
        timeout_s=timeout_s,
        env={"SNF_LAB_STATE": str(lab.state.path)},
    )


def trixie(lab: Lab) -> Counts:
    """The demo on Debian 13, in place of the lab that the other stages used."""
    if lab.config is not None and lab.config.release != "trixie":
        lab.down()
    return Counts(passed=demo.run_demo(lab, release="trixie"))


def logs(lab: Lab) -> Path:
    """Where the stages' logs are: they outlive the lab, which is taken down at the end."""
    folder = lab.state.cache / "test-logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prepare(lab: Lab) -> None:
    """What the stages on this machine need there."""
    lab.install_on_host()
    lab.state.make_folders()
    host_packages.ensure_installed(suite.TEST_PACKAGES, log=logs(lab) / "host-packages.log", progress=lab.progress)


RUNNERS = {
    **{"lint": lint, "pure": pure, "packages": packages, "node": node, "cluster": cluster, "trixie": trixie},
    **{"long": long, "volumes": volumes},
}

COMMAND = Command(
    name="test",
    summary="run the whole test suite (this is what CI runs)",
    details=suite.__doc__ or "",
    arguments=arguments,
    run=run,
)
