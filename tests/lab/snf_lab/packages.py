"""Our packages: built from the tree, with all that they depend on, in a repository that nodes install from.

A node has no way out, so its apt gets a `file:` repository with our .debs and the closure of their dependencies, and
nothing else: what installs there installs by the Depends we declare. Each of the three steps is kept by the hash of
what it is made from: the helper VM's image, the .debs, the closure.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from snf_lab import nspawn
from snf_lab.apt import KEYRINGS, AptSettings
from snf_lab.ceph import CLIENT_PACKAGES
from snf_lab.node import Node
from snf_lab.progress import Progress, run_logged
from snf_lab.roots import ARCHIVE_LIST
from snf_lab.state import RELEASES, TREE, State, content_hash
from synnefo_light.errors import ToolError
from synnefo_light.run import Runner, run

#: What an administrator would name; the rest must follow.
INSTALLED = ("synnefo-light-node",)

#: What tests want to install on a node besides: offered by the repository, installed by those tests alone.
FOR_TESTS = (
    *("python3-pytest", "python3-pytest-xdist", "strace", "gdisk", "fdisk", "e2fsprogs", "curl"),
    *("busybox-static", "net-tools"),  # the programs of an image that runs one; nameif, which Alpine has of busybox
    *("lvm2", "ntfs-3g", "python3-hypothesis"),  # attacks and their controls
    *("gpg", "gpg-agent", "openssl", "python3-pyftpdlib", "python3-openssl"),  # signed images, a server for ftps
    *("python3-hivex", "chntpw", "libxml2-utils"),  # the registry and answer files of Windows
    *("qemu-utils", "zstd", "xz-utils", "bzip2"),  # images of other formats
    *("xfsprogs", "btrfs-progs", "f2fs-tools", "dosfstools", "mtools", "makefs"),  # file systems without a mount
    "python3-yaml",  # reads what is given to cloud-init
    *("ceph-mon", "ceph-osd", *CLIENT_PACKAGES),  # a Ceph of the tests' own, disks without a path
    *("fio", "qemu-guest-agent"),  # disks in use, and guests that freeze
)

#: What tests take apart without installing it.
FOR_READING = ("netplan.io", "ifupdown", "udev", "gir1.2-nm-1.0", "python3-gi", "cloud-init")
#: The same, but not to be had together with those.
FOR_READING_ALONE = ("ifupdown-ng",)

#: Parts of the tree that no package is made of.
NOT_PACKAGED = ("lab",)
NOT_PACKAGED_FOLDERS = ("tests/", ".ci/")
HELPER_RELEASE = "bookworm"
HELPER_BUILD = "snf-image-helper/vm/snf-image-helper-build"
#: What the helper VM's image is made of.
HELPER_PARTS = ("snf-image-helper/", "synnefo_light/")
NO_HELPER_PART = "synnefo_light/store/"

DIST_PACKAGES = "/usr/lib/python3/dist-packages"
LOCK_WAIT_S = 120
LOCK_WAIT = ("-o", f"DPkg::Lock::Timeout={LOCK_WAIT_S}")
MARKER = "/var/lib/synnefo-light-lab-installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class OurPackages:
    """What a repository offers of ours: the names, and a hash that changes when any file does."""

    names: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeFile:
    path: str
    mode: int
    digest: bytes


def parse_file_list(raw: bytes) -> tuple[str, ...]:
    """`git ls-files -z`, without what no package is made of."""
    names = sorted({os.fsdecode(name) for name in raw.split(b"\0") if name})
    return tuple(n for n in names if n not in NOT_PACKAGED and not n.startswith(NOT_PACKAGED_FOLDERS))


def read_tree(runner: Runner) -> tuple[TreeFile, ...]:
    """The tree's files, tracked and new but not ignored. The tree's owner may be another user than root."""
    listed = runner(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TREE,
        timeout_s=60,
    )
    found = []
    for name in parse_file_list(listed.stdout):
        path = TREE / name
        if path.is_symlink():
            found.append(TreeFile(path=name, mode=0o120000, digest=os.fsencode(path.readlink())))
        elif path.is_file():
            executable = bool(path.stat().st_mode & 0o100)
            digest = hashlib.sha256(path.read_bytes()).digest()
            found.append(TreeFile(path=name, mode=0o755 if executable else 0o644, digest=digest))
    return tuple(found)


def tree_hash(files: Iterable[TreeFile]) -> str:
    return content_hash(*(part for f in files for part in (f.path, f"{f.mode:o}", f.digest)))


def ensure_repo(
    state: State, root: Path, settings: AptSettings, progress: Progress, runner: Runner = run
) -> OurPackages | None:
    """Fill the nodes' repository for a root; None while the tree has no debian/ to build packages with."""
    if not (TREE / "debian" / "control").exists():
        return None
    built = ensure_built(state, settings, progress, runner)
    ours = sorted(built.glob("*.deb"))
    closure = _ensure_closure(state, root, ours, settings, progress, runner)
    packages = OurPackages(
        names=tuple(deb.name.split("_")[0] for deb in ours), digest=content_hash(built.name, closure.name)
    )
    made = state.run / "repo-made"
    if not (made.exists() and made.read_text() == packages.digest):
        made.unlink(missing_ok=True)
        _fill(state.repo, [*ours, *sorted(closure.glob("*.deb"))], runner)
        made.write_text(packages.digest)
    return packages


# --- our .debs


def ensure_built(state: State, settings: AptSettings, progress: Progress, runner: Runner = run) -> Path:
    """The folder with the .debs of the tree as it is now, built if they are not in the cache."""
    files = read_tree(runner)
    folder = state.cache / "packages"
    final = folder / tree_hash(files)
    if final.is_dir():
        return final
    helper = ensure_helper(state, files, settings, progress, runner)
    log = state.log / "packages.log"
    with progress.step("build our packages", log=log):
        work, result = _fresh(folder, ".work"), _fresh(folder, ".result")
        tree = work / "tree"
        for file in files:
            target = tree / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TREE / file.path, target, follow_symlinks=False)
        run_logged(
            # Build-Depends are on the host already (host_packages.py); the check would ask for a C compiler besides.
            ["dpkg-buildpackage", "--build=binary", "--no-sign", "--no-check-builddeps"],
            log=log,
            contain=True,
            timeout_s=1800,
            env={**settings.environment, **({"HELPER": str(helper)} if helper else {})},
            cwd=tree,
            runner=runner,
        )
        for deb in sorted(work.glob("*.deb")):
            deb.rename(result / deb.name)
        _publish(result, final)
        shutil.rmtree(work)
    return final


def ensure_helper(
    state: State, files: tuple[TreeFile, ...], settings: AptSettings, progress: Progress, runner: Runner
) -> Path | None:
    """The folder of the helper VM's image, which is most of a build's time, apart from the rest; or None."""
    parts = tuple(f for f in files if f.path.startswith(HELPER_PARTS) and not f.path.startswith(NO_HELPER_PART))
    if not any(f.path == HELPER_BUILD for f in parts):
        return None
    folder = state.cache / "helper"
    final = folder / tree_hash(parts)
    if final.is_dir():
        return final
    log = state.log / "helper-image.log"
    with progress.step("build the helper VM's image", log=log):
        making = _fresh(folder, ".making")
        mirrors = [word for line in settings.sources(HELPER_RELEASE) for word in ("--mirror", line)]
        run_logged(
            [TREE / HELPER_BUILD, "--output", making, "--cache", state.cache / "helper-debs", *mirrors],
            log=log,
            contain=True,
            timeout_s=1800,
            env=dict(settings.environment),
            cwd=TREE,
            runner=runner,
        )
        _publish(making, final)
    return final


# --- what they depend on


def render_apt_conf(folder: Path, root: Path, settings: AptSettings) -> str:
    """An apt of its own in `folder` that believes to be the root's: its installed packages, the host's archive."""
    lines = [
        f'Dir "{folder}";',
        f'Dir::State::status "{root}/var/lib/dpkg/status";',
        f'Dir::Etc::TrustedParts "{KEYRINGS}";',
        'APT::Install-Recommends "false";',
        'APT::Get::Assume-Yes "true";',
        'APT::Sandbox::User "root";',
        'Acquire::Languages "none";',
        'Debug::NoLocking "true";',
        *settings.options,
    ]
    return "".join(f"{line}\n" for line in lines)


def render_sources(archive: Sequence[str], made_from: str, ours: Path) -> str:
    """The archive that the host's apt uses, or else the one that the root was made from, and our .debs."""
    lines = "".join(f"{line}\n" for line in archive) or made_from
    return f"{lines}deb [trusted=yes] file:{ours} ./\n"


def _ensure_closure(
    state: State, root: Path, ours: Sequence[Path], settings: AptSettings, progress: Progress, runner: Runner
) -> Path:
    declared = [
        runner(["dpkg-deb", "--field", deb, "Package", "Pre-Depends", "Depends"], timeout_s=60).text for deb in ours
    ]
    folder = state.cache / "closure"
    codename = root.name.partition("-")[0]
    final = (
        folder
        / f"{codename}-{content_hash(root.name, *INSTALLED, *FOR_TESTS, *FOR_READING, *FOR_READING_ALONE, *declared)}"
    )
    if final.is_dir():
        return final
    log = state.log / "closure.log"
    with progress.step(f"fetch what our packages depend on in Debian {RELEASES[codename].debian}", log=log):
        work = _fresh(folder, ".work")
        offered = work / "ours"
        for part in ("ours", "etc/apt/preferences.d", "etc/apt/apt.conf.d", "lists/partial", "archives/partial"):
            (work / part).mkdir(parents=True)
        _fill(offered, ours, runner)
        made_from = (root / ARCHIVE_LIST).read_text()
        (work / "sources.list").write_text(render_sources(settings.sources(codename), made_from, offered))
        conf = render_apt_conf(work, root, settings) + (
            f'Dir::Etc::SourceList "{work}/sources.list";\nDir::Etc::SourceParts "-";\n'
            f'Dir::State::Lists "{work}/lists";\nDir::Cache::Archives "{work}/archives";\n'
            f'Dir::Log "{work}";\n'
        )
        (work / "apt.conf").write_text(conf)
        env = {**settings.environment, "APT_CONFIG": str(work / "apt.conf")}
        run_logged(["apt-get", "update"], log=log, contain=True, timeout_s=600, env=env, runner=runner)
        for packages in ((*INSTALLED, *FOR_TESTS, *FOR_READING), *((name,) for name in FOR_READING_ALONE)):
            run_logged(
                ["apt-get", "install", "--download-only", *packages],
                log=log,
                contain=True,
                timeout_s=900,
                env=env,
                runner=runner,
            )
        result = _fresh(folder, ".result")
        for deb in (work / "archives").glob("*.deb"):
            deb.rename(result / deb.name)
        _publish(result, final)
        shutil.rmtree(work)
    return final


# --- the repository


def _fill(folder: Path, debs: Sequence[Path], runner: Runner) -> None:
    """Put exactly these .debs and their index into a folder that may be bound into nodes: it stays the same folder."""
    for old in folder.iterdir():
        old.unlink()
    for deb in debs:
        shutil.copy2(deb, folder / deb.name)
    index = runner(["dpkg-scanpackages", "--multiversion", "."], cwd=folder, timeout_s=120).stdout
    (folder / "Packages").write_bytes(index)


def _fresh(folder: Path, name: str) -> Path:
    path = folder / name
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def _publish(made: Path, final: Path) -> None:
    """Give what is whole its name, and forget its predecessors of the same kind."""
    kind = final.name.partition("-")[0] + "-*" if "-" in final.name else "[!.]*"
    for old in final.parent.glob(kind):
        shutil.rmtree(old)
    made.rename(final)


# --- in the node


def install(node: Node, ours: OurPackages, *, dev: bool) -> None:
    """Install as an administrator would; again when what is offered has changed. A second call does nothing."""
    before = node.read(MARKER).decode() if node.exists(MARKER) else ""
    if before != ours.digest:
        unbind_tree(node)
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        # The version is the same while the tree changes, so a later build has to be installed over the earlier one.
        words = ["--reinstall", *ours.names] if before else list(INSTALLED)
        _finish_interrupted(node)
        node.run(["apt-get", *LOCK_WAIT, "update"], timeout_s=120, env=env)
        # What the lab or a test wrote into a configuration file stays.
        install = ["apt-get", *LOCK_WAIT, "-o", "Dpkg::Options::=--force-confold", "install", "--yes"]
        node.run([*install, "--no-install-recommends", *words], timeout_s=900, env=env)
        node.write(MARKER, ours.digest.encode())
    bind_tree(node, dev=dev)


def _finish_interrupted(node: Node) -> None:
    """Finish an installation that was cut short; a dpkg that outlived its apt keeps the lock for a moment."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            node.run(["dpkg", "--configure", "--pending"], timeout_s=300, env={"DEBIAN_FRONTEND": "noninteractive"})
            return
        except ToolError as e:
            if "lock" not in e.stderr or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def bind_tree(node: Node, *, dev: bool) -> None:
    """With --dev: the tree's Python packages over the installed ones, so that a change is there without a build."""
    if not dev:
        return
    unbind_tree(node)
    for package in python_packages(TREE):
        target = f"{DIST_PACKAGES}/{package.name}"
        if node.exists(target):
            node.run(["mount", "--bind", f"{nspawn.TREE}/{package.relative_to(TREE)}", target])


def unbind_tree(node: Node) -> None:
    for package in python_packages(TREE):
        target = f"{DIST_PACKAGES}/{package.name}"
        if node.run(["mountpoint", "--quiet", target], ok=range(256)).returncode == 0:
            node.run(["umount", target])


def python_packages(tree: Path) -> tuple[Path, ...]:
    """The importable packages of the tree that are installed on nodes: the library's and the rooms'."""
    found = [tree / "synnefo_light", *(init.parent for init in tree.glob("*/snf_*/__init__.py"))]
    return tuple(sorted(package for package in found if package.is_dir()))
