"""The test suite, stage by stage: what can fail early and cheaply comes first.

    lint       ruff, its formatter, mypy strict                          on this machine
    pure       tests/unit, golden, meta                                  on this machine
    packages   dpkg-buildpackage, lintian, the helper's image twice      on this machine
    node       tests/real, attack: installed packages, real tools,
               the real helper VM                                        in node 1
    cluster    tests/cluster: real Ganeti, VMs that boot                 driven from this machine
    trixie     the demo on Debian 13                                     in a lab of its own
    long       only when named: the hostile images that the stage node
               leaves out                                                in node 1
    volumes    only when named: all tests of volumes on three nodes,
               on a shared directory and on Ceph (20 minutes)

Each stage is one or more programs; the first that fails ends the run. Nothing may be skipped (SNF_NO_SKIP): a skip
would hide that a machine cannot show what the suite is there to show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_lab.host_packages import HostPackage
from snf_lab.node import Node
from snf_lab.packages import FOR_TESTS
from snf_lab.progress import Progress, run_logged
from snf_lab.state import TREE, State, content_hash
from synnefo_light.errors import PeerError, ToolError
from synnefo_light.run import Runner, run

REQUIREMENTS = TREE / "tests" / "requirements.txt"

#: What the suite needs on the host besides what builds and runs the lab.
TEST_PACKAGES = (
    HostPackage(name="python3-venv", reason="a place for ruff, mypy and pytest"),
    HostPackage(name="python3-psutil", reason="unit tests import what uses it"),
    HostPackage(name="python3-pyudev", reason="unit tests import what uses it"),
    HostPackage(name="python3-hypothesis", reason="unit tests draw their input with it"),
    HostPackage(name="python3-requests", reason="unit tests import what uses it"),
    HostPackage(name="python3-bitarray", reason="unit tests import what uses it"),
    HostPackage(name="python3-yaml", reason="golden tests read what cloud-init is to read"),
    HostPackage(name="lintian", reason="checks our packages"),
    HostPackage(name="qemu-utils", reason="cluster tests make images of other formats"),
)

#: Where the tree is put in the node; the packages that the tests drive are the installed ones.
NODE_TREE = "/srv/synnefo-light-tree"

PURE = ("tests/unit", "tests/golden", "tests/meta")
#: Real tests that need the archive, from which a node is cut off.
IMAGE_BUILD = "tests/real/snf_image_helper/test_image_build.py"
#: Attacks watch what happens on the node. These make it happen: naive deployments, and some into the node's own spool.
APART = ("tests/attack/test_controls.py", "tests/attack/test_hostile_images.py")
SHORT = ("-m", "not long")
IN_NODE: Mapping[str, Sequence[str]] = {
    "real tests": ("tests/real", *APART, f"--ignore={IMAGE_BUILD}", *SHORT),
    "attacks": ("tests/attack", *(f"--ignore={path}" for path in APART), *SHORT),
}
LONG_IN_NODE: Mapping[str, Sequence[str]] = {"long tests": ("tests/attack", "-m", "long")}
CLUSTER = ("tests/cluster", *SHORT)
VOLUMES = ("tests/cluster/volumes",)
#: The helper VM has one processor, so two tests at a time take half of the time; tests/conftest.py keeps some apart.
SIDE_BY_SIDE = ("--numprocesses=2", "--dist=loadgroup", "--durations=0", "--durations-min=2")

_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What pytest said in its last line."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            passed=self.passed + other.passed,
            failed=self.failed + other.failed,
            skipped=self.skipped + other.skipped,
        )


def parse_counts(output: str) -> Counts:
    """The counts in the last summary line of a pytest run; all zero when there is none."""
    lines = [line for line in output.splitlines() if re.search(r"\d+ (passed|failed|error)", line)]
    found = {word.rstrip("s"): int(n) for n, word in _COUNT.findall(lines[-1])} if lines else {}
    return Counts(
        passed=found.get("passed", 0),
        failed=found.get("failed", 0) + found.get("error", 0),
        skipped=found.get("skipped", 0),
    )


def ensure_venv(state: State, *, progress: Progress, log: Path, runner: Runner = run) -> Path:
    """The folder of a virtual environment with tests/requirements.txt; made once for each content of that file."""
    venv = state.cache / "venv" / content_hash(REQUIREMENTS.read_bytes())
    if (venv / "ready").exists():
        return venv
    with progress.step("install the linters and pytest", log=log):
        venv.parent.mkdir(parents=True, exist_ok=True)
        make: list[str | Path] = ["/usr/bin/python3", "-m", "venv", "--clear", "--system-site-packages", venv]
        run_logged(make, log=log, timeout_s=300, runner=runner)
        pip: list[str | Path] = [venv / "bin" / "pip", "install", "--quiet", "--requirement", REQUIREMENTS]
        run_logged(pip, log=log, timeout_s=1200, runner=runner)
        (venv / "ready").touch()
    return venv


def lint_commands(venv: Path) -> tuple[tuple[str, list[str]], ...]:
    python = str(venv / "bin" / "python")
    # tests/lab is a search root of its own: named beside "tests" it would be found under two names.
    tests = sorted(
        str(path.relative_to(TREE))
        for path in (TREE / "tests").iterdir()
        if path.name != "lab" and (path.suffix == ".py" or any(path.rglob("*.py")))
    )
    packages = ("extstorage/snf_extstorage", "snf-image-host/snf_image_host", "snf-image-helper/snf_image_helper")
    rooms = ["synnefo_light", "hooks/snf_hooks", *packages, "tests/lab/snf_lab"]
    return (
        ("ruff", [str(venv / "bin" / "ruff"), "check", "--no-cache", "."]),
        ("ruff format", [str(venv / "bin" / "ruff"), "format", "--no-cache", "--check", "."]),
        ("mypy strict", [python, "-m", "mypy", "--cache-dir=/dev/null", *rooms, *tests]),
    )


def run_lint(venv: Path, *, progress: Progress, log: Path, runner: Runner = run) -> None:
    for name, argv in lint_commands(venv):
        with progress.step(name, log=log):
            run_logged(argv, log=log, timeout_s=900, cwd=TREE, runner=runner)


def run_pytest(
    python: Sequence[str | Path],
    folders: Sequence[str],
    *,
    title: str,
    progress: Progress,
    log: Path,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    runner: Runner = run,
) -> Counts:
    """One pytest run with a log of its own. Raises ToolError with its tail when a test fails or nothing was run."""
    argv = [*python, "-m", "pytest", "--color=no", *folders]
    with progress.step(title, log=log) as step:
        log.unlink(missing_ok=True)
        given = {"SNF_NO_SKIP": "1", "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        try:
            run_logged(argv, log=log, timeout_s=timeout_s, env=given, cwd=TREE, runner=runner)
        except ToolError:
            step.note = _told(parse_counts(log.read_text(errors="replace")))
            raise
        counts = parse_counts(log.read_text(errors="replace"))
        step.note = _told(counts)
        if counts.passed == 0:
            raise PeerError(f"{title} ran no test; look into {log}")
    return counts


def run_lintian(debs: Sequence[Path], *, log: Path, runner: Runner = run) -> None:
    """Errors and warnings of lintian fail; what is meant as it is has its reason in debian/*.lintian-overrides."""
    argv: list[str | Path] = ["lintian", "--fail-on", "error,warning", "--no-cfg", *debs]
    run_logged(argv, log=log, timeout_s=600, runner=runner)


def _told(counts: Counts) -> str:
    return f"{counts.passed} passed, {counts.failed} failed" + (f", {counts.skipped} skipped" if counts.skipped else "")


def copy_tree(node: Node, *, runner: Runner = run) -> None:
    """Put the tree's files into the node, replacing an earlier copy."""
    node.run(["rm", "-rf", NODE_TREE])
    archive = runner(
        [
            "sh",
            "-c",
            "git -c safe.directory=* ls-files -z --cached --others --exclude-standard | "
            "tar --create --null --files-from=- --ignore-failed-read",
        ],
        cwd=TREE,
        timeout_s=120,
    ).stdout
    node.run(["mkdir", "-p", NODE_TREE])
    node.run(["tar", "--extract", f"--directory={NODE_TREE}"], stdin=archive, timeout_s=120)


def install_tests(node: Node, *, progress: Progress, log: Path) -> None:
    """The tree and the tools of its tests; a second call installs nothing and copies the tree again."""
    with progress.step("install the tests' tools in the node", log=log):
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        node.run(["apt-get", "install", "--yes", "--no-install-recommends", *FOR_TESTS], timeout_s=600, env=env)
        copy_tree(node)


def run_in_node(
    node: Node, *, progress: Progress, logs: Path, timeout_s: float, tests: Mapping[str, Sequence[str]] = IN_NODE
) -> Counts:
    """The tests that need installed packages, root and tools of every kind; they leave no trace outside the node."""
    install_tests(node, progress=progress, log=logs / "node-tools.log")
    inside = node.enter(
        ["sh", "-c", f'cd {NODE_TREE} && exec "$@"', "sh", "/usr/bin/python3"],
        env={"SNF_NO_SKIP": "1", "TMPDIR": "/var/tmp"},
    )
    counts = Counts()
    for title, what in tests.items():
        log = logs / f"node-{title.replace(' ', '-')}.log"
        argv = [*SIDE_BY_SIDE, *what]
        counts += run_pytest(
            inside, argv, title=f"{title} on {node.name}", progress=progress, log=log, timeout_s=timeout_s
        )
    return counts
