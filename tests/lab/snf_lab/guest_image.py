"""Make the guest image: a bootable Debian on a sparse raw disk. The usual one, on ext4, without a mount or loop device.

    mmdebstrap ─► tree ─┐
    sfdisk ─► table ────┼─► file systems, at the partitions' offsets ─► boot.img, core.img ─► NAME.raw + NAME.json
    grub-mkimage ───────┘   (grub-mkimage runs in a small cached tree of its own, not on the host)

The image and what is stale in it (`GuestFacts`) lie in the cache under the digest of the recipe. Both are made under
temporary names; the commit point is the rename of the .json, which comes last. A maker that dies leaves a folder
`.making-*` that the next one removes.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from snf_lab.apt import AptSettings
from snf_lab.guest_filesystems import plan_fill_boot, plan_fill_esp, plan_fill_root
from snf_lab.guest_grub import SECTOR, patch_boot_sector, patch_core_image
from snf_lab.guest_recipe import GuestPlan, GuestRecipe, plan_guest
from snf_lab.guest_tree import make_tree, plan_tree
from synnefo_light import files
from synnefo_light.errors import EnvironmentFault
from synnefo_light.run import Runner, run

MAKING = ".making-"
LOCK_S = 1800.0
TOOL_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFacts:
    """What is in an image before it is deployed; a deployed guest must differ in all but the release."""

    release: str
    hostname: str
    machine_id: str
    host_key_fingerprints: tuple[str, ...]
    disk_size: int
    used_bytes: int
    root_uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestImage:
    path: Path
    facts: GuestFacts


def ensure_guest_image(
    recipe: GuestRecipe, *, cache: Path, settings: AptSettings, log: Path, runner: Runner = run
) -> GuestImage:
    """The image for `recipe`, made if the cache has none. Most of a minute the first time, nothing the second.

    `log` gets what the makers say. Raises ToolError when one of them fails; then the cache is as it was.
    """
    found = read_guest_image(recipe, cache=cache)
    if found is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    with files.locked(cache / ".guest-image.lock", wait_s=LOCK_S):
        found = read_guest_image(recipe, cache=cache)
        if found is not None:
            return found
        for stale in cache.glob(f"{MAKING}*"):
            shutil.rmtree(stale)
        maker = _Maker(plan=plan_guest(recipe), cache=cache, settings=settings, log=log, run=runner)
        with maker.workplace() as work:
            facts = maker.make(work)
            final = image_path(recipe, cache=cache)
            (work / "disk.raw").rename(final)
            files.write_atomic(final.with_suffix(".json"), json.dumps(asdict(facts), indent=1).encode() + b"\n")
    return GuestImage(path=final, facts=facts)


def image_path(recipe: GuestRecipe, *, cache: Path) -> Path:
    kinds = (recipe.release, recipe.table, recipe.firmware, recipe.root, recipe.network)
    return cache / f"debian-{'-'.join(kinds)}-{plan_guest(recipe).key}.raw"


def read_guest_image(recipe: GuestRecipe, *, cache: Path) -> GuestImage | None:
    """What an earlier run made, or None."""
    path = image_path(recipe, cache=cache)
    try:
        raw = json.loads(files.read_bounded(path.with_suffix(".json"), limit=64 << 10))
    except FileNotFoundError:
        return None
    if not path.exists():
        return None
    try:
        facts = GuestFacts(**{**raw, "host_key_fingerprints": tuple(raw["host_key_fingerprints"])})
    except (TypeError, KeyError) as e:
        raise EnvironmentFault(f"{path.with_suffix('.json')} does not describe a guest image ({e}); remove it") from e
    return GuestImage(path=path, facts=facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    plan: GuestPlan
    cache: Path
    settings: AptSettings
    log: Path
    run: Runner

    @contextlib.contextmanager
    def workplace(self) -> Iterator[Path]:
        work = self.cache / f"{MAKING}{self.plan.key}"
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work)

    def make(self, work: Path) -> GuestFacts:
        plan = self.plan
        tree, disk = work / "tree", work / "disk.raw"
        self._build_tree(work, tree)
        with open(disk, "wb") as file:
            file.truncate(plan.disk_size)
        self._say(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk], stdin=plan.partition_script.encode())
        boot = tree / "boot"
        if plan.layout.boot is not None:
            boot = (tree / "boot").rename(work / "boot")
            (tree / "boot").mkdir()
        for command in (
            *plan_fill_root(plan, disk=disk, tree=tree, mount_point=work / "mnt"),
            *plan_fill_boot(plan, disk=disk, folder=boot),
        ):
            self._say(command)
        self._install_grub(work, disk)
        return GuestFacts(
            release=plan.release,
            hostname=(tree / "etc/hostname").read_text().strip(),
            machine_id=(tree / "etc/machine-id").read_text().strip(),
            host_key_fingerprints=self._fingerprints(tree),
            disk_size=plan.disk_size,
            used_bytes=disk.stat().st_blocks * SECTOR,
            root_uuid=plan.root_uuid,
        )

    def _build_tree(self, work: Path, tree: Path) -> None:
        early, late = work / "early", work / "late"
        write_files(early, self.plan.early_files)
        write_files(late, self.plan.late_files)
        words = plan_guest_tree(self.plan, tree=tree, early=early, late=late, settings=self.settings)
        make_tree(words, log=self.log, settings=self.settings, runner=self.run)

    def _install_grub(self, work: Path, disk: Path) -> None:
        core = self._grub_core(work, format_="i386-pc" if self.plan.layout.core else "x86_64-efi")
        if self.plan.layout.core is None:
            (work / "grub.efi").write_bytes(core)
            for command in plan_fill_esp(self.plan, disk=disk, loader=work / "grub.efi"):
                self._say(command)
            return
        boot = (self._grub_tools() / "usr/lib/grub/i386-pc/boot.img").read_bytes()
        place = self.plan.layout.core
        with open(disk, "r+b") as file:
            sector = patch_boot_sector(boot_image=boot, present=file.read(SECTOR), core_start=place.start)
            file.seek(0)
            file.write(sector)
            file.seek(place.offset)
            file.write(patch_core_image(core_image=core, core_start=place.start, room=place.sectors))

    def _grub_core(self, work: Path, *, format_: str) -> bytes:
        tools = self._grub_tools()
        inside = f"/tmp/{work.name}"
        (tools / inside[1:]).mkdir(parents=True)
        try:
            (tools / inside[1:] / "embedded.cfg").write_text(self.plan.grub_embedded)
            self._say(
                [
                    *("chroot", tools, "grub-mkimage", "--format", format_, "--prefix", "/boot/grub"),
                    *("--config", f"{inside}/embedded.cfg", "--output", f"{inside}/core.img"),
                    *self.plan.grub_modules,
                ]
            )
            return (tools / inside[1:] / "core.img").read_bytes()
        finally:
            shutil.rmtree(tools / inside[1:])

    def _grub_tools(self) -> Path:
        """A tree that holds grub-mkimage and the libraries it needs: unpacked packages, nothing configured or run."""
        tools = self.cache / "grub-bios-and-efi"
        if not tools.exists():
            making = self.cache / f"{MAKING}{tools.name}"
            packages = ["grub-pc-bin", "grub-efi-amd64-bin"]
            words = plan_tree(
                release="bookworm", variant="extract", packages=packages, target=making, settings=self.settings
            )
            make_tree(words, log=self.log, settings=self.settings, runner=self.run)
            making.rename(tools)
        return tools

    def _fingerprints(self, tree: Path) -> tuple[str, ...]:
        # The tree's own ssh-keygen: the host may have none.
        lines = [
            self.run(["chroot", tree, "ssh-keygen", "-l", "-f", f"/etc/ssh/{key.name}"], timeout_s=30).text
            for key in sorted((tree / "etc/ssh").glob("ssh_host_*_key.pub"))
        ]
        return tuple(line.split()[1] for line in lines)

    def _say(self, argv: Sequence[str | Path], *, stdin: bytes | None = None) -> None:
        done = self.run(argv, stdin=stdin, timeout_s=TOOL_S)
        with open(self.log, "ab") as log:
            log.write(f"$ {shlex.join(done.argv)}\n".encode() + done.stdout + done.stderr)


def plan_guest_tree(plan: GuestPlan, *, tree: Path, early: Path, late: Path, settings: AptSettings) -> list[str | Path]:
    inside = [f'--customize-hook=chroot "$1" {shlex.join(command)}' for command in plan.chroot_commands]
    return plan_tree(
        release=plan.release,
        variant="minbase",
        packages=plan.packages,
        target=tree,
        settings=settings,
        options=[
            # It would empty /etc/machine-id, one of the leftovers that are wanted.
            "--skip=cleanup/reproducible",
            f"--setup-hook=sync-in {shlex.quote(str(early))} /",
            f"--customize-hook=sync-in {shlex.quote(str(late))} /",
            *inside,
        ],
    )


def write_files(folder: Path, contents: Mapping[str, str]) -> None:
    """Write a tree of root's files with mode 0644 and folders with 0755, whatever the umask is."""
    folder.mkdir(mode=0o755)
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        for parent in path.relative_to(folder).parents:
            (folder / parent).chmod(0o755)
