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


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"only these: {', '.join(STAGES)} (all)")
    parser.add_argument("--keep", action="store_true", help="leave the lab up afterwards")


def run(arguments: argparse.Namespace, lab: Lab) -> int:
    stages: Sequence[str] = arguments.stages or STAGES
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        lab.progress.say(f"stage {unknown[0]!r} is unknown; the stages are {', '.join(STAGES)}")
        return 64
    counts = Counts()
    try:
        for stage in (stage for stage in STAGES if stage in stages):
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
    lab.ensure_up(nodes=1, release="bookworm")
    venv = suite.ensure_venv(lab.state, progress=lab.progress, log=logs(lab) / "venv.log")
    log = logs(lab) / "cluster-tests.log"
    return suite.run_pytest(
        [venv / "bin" / "python"],
        [suite.CLUSTER],
        title="cluster tests",
        progress=lab.progress,
        log=log,
        timeout_s=1500,
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


RUNNERS = {"lint": lint, "pure": pure, "packages": packages, "node": node, "cluster": cluster, "trixie": trixie}

COMMAND = Command(
    name="test",
    summary="run the whole test suite (this is what CI runs)",
    details=suite.__doc__ or "",
    arguments=arguments,
    run=run,
)
