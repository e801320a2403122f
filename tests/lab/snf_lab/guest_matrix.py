"""Real guests: a row is a Debian of some kind, customised by `snf-image run`, booted, entered by both doors, and asked.

Every row is deployed without a cluster onto a disk larger than the image, with a password, a key, a file and a static
address, and must hold the same claims as the demo's guest.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from snf_lab import apt, guest_facts
from snf_lab.guest_boot import ADDRESS, GATEWAY, MAC, PREFIX, booted
from snf_lab.guest_facts import Check, Expected, parse_seen, plan_checks
from snf_lab.guest_image import GuestImage, ensure_guest_image
from snf_lab.guest_recipe import GuestRecipe
from snf_lab.host_packages import HostPackage
from snf_lab.lab import Lab
from snf_lab.progress import Progress
from snf_lab.state import TREE
from synnefo_light.run import run

DISK_GIB = 3
PASSWORD = "matrix-password"
FILE_PATH, FILE_CONTENT, FILE_MODE = "/srv/matrix/welcome", b"as ordered\n", 0o640
PACKAGES = (
    HostPackage(name="qemu-system-x86", reason="boots the guests"),
    HostPackage(name="qemu-utils", reason="makes qcow2 images"),
    HostPackage(name="openssh-client", reason="enters the guests"),
    HostPackage(name="xfsprogs", reason="makes XFS roots"),
    HostPackage(name="btrfs-progs", reason="makes btrfs roots"),
    HostPackage(name="lvm2", reason="makes logical volumes"),
    HostPackage(name="dosfstools", reason="makes EFI system partitions"),
    HostPackage(name="mtools", reason="fills EFI system partitions"),
    HostPackage(name="ovmf", reason="boots guests with UEFI"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    recipe: GuestRecipe
    qcow2: bool = False
    properties: Mapping[str, str] | None = None


MATRIX: Mapping[str, Row] = {
    "debian-11": Row(recipe=GuestRecipe(release="bullseye")),
    "debian-12-logical-networkd": Row(recipe=GuestRecipe(table="logical", network="networkd")),
    "debian-12-xfs-netplan": Row(recipe=GuestRecipe(root="xfs", network="netplan")),
    "debian-12-btrfs-networkmanager": Row(recipe=GuestRecipe(root="btrfs", network="networkmanager")),
    "debian-12-lvm-boot-apart": Row(recipe=GuestRecipe(root="lvm", boot_apart=True)),
    "debian-13-uefi-networkd": Row(recipe=GuestRecipe(release="trixie", firmware="uefi", network="networkd")),
    "debian-13-cloud-init-qcow2": Row(
        recipe=GuestRecipe(release="trixie", network="netplan", cloud_init=True),
        qcow2=True,
        properties={"CLOUD_INIT": "yes"},
    ),
}


def run_row(lab: Lab, name: str) -> tuple[Check, ...]:
    """Make the image if need be, deploy, boot, ask. Raises Error when one of it fails; failed claims are returned."""
    row, progress = MATRIX[name], lab.progress
    log = lab.state.log / f"guest-{name}.log"
    with progress.step(f"{name}: the image", log=log):
        image = ensure_guest_image(row.recipe, cache=lab.state.images, settings=apt.read_settings(run), log=log)
    with tempfile.TemporaryDirectory(prefix="snf-guest-", dir=lab.state.images) as folder:
        return _deploy_and_ask(Path(folder), name, row, image, helper=lab.helper_image(), progress=progress)


def _deploy_and_ask(
    folder: Path, name: str, row: Row, image: GuestImage, *, helper: Path, progress: Progress
) -> tuple[Check, ...]:
    key = folder / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "matrix", "-f", key], timeout_s=30)
    disk = folder / "disk"
    with open(disk, "wb") as file:
        file.truncate(DISK_GIB << 30)
    with progress.step(f"{name}: snf-image run"):
        source = _source(folder, row, image)
        config = folder / "snf-image.toml"
        config.write_text(render_config(folder, images=source.parent, helper=helper))
        command = plan_run(disk, name, row, image=source.name, key=key.with_suffix(".pub").read_text().strip())
        run(command, timeout_s=900, env={"SNF_IMAGE_CONFIG": str(config)})
    with booted(disk, firmware=row.recipe.firmware, folder=folder) as guest:
        with progress.step(f"{name}: boot and log in at the console") as step:

            def tell(text: str) -> None:
                step.note = text[:60]

            answer = guest.log_in(password=PASSWORD, told=tell)
            step.note = ""
        with progress.step(f"{name}: log in over SSH and look around"):
            facts = guest.ssh(key, guest_facts.SCRIPT, FILE_PATH)
            presented = guest.presented()
    expected = Expected(
        hostname=name,
        address=ADDRESS,
        prefix=PREFIX,
        gateway=GATEWAY,
        disk_size=DISK_GIB << 30,
        file_owner="www-data:adm",
        file_mode=FILE_MODE,
        file_content=FILE_CONTENT,
    )
    return plan_checks(
        parse_seen(facts), expected=expected, image=image.facts, console_answer=answer, presented_key=presented
    )


def _source(folder: Path, row: Row, image: GuestImage) -> Path:
    if not row.qcow2:
        return image.path
    images = folder / "images"
    images.mkdir()
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", image.path, images / "guest.qcow2"], timeout_s=600)
    return images / "guest.qcow2"


def render_config(folder: Path, *, images: Path, helper: Path) -> str:
    """A configuration for one deployment that leaves nothing outside of `folder`."""
    folders = {"image_dir": images, "helper_dir": helper, "run_dir": folder / "run", "log_dir": folder / "log"}
    folders |= {"spool": folder / "spool", "variants_dir": folder / "variants"}
    return "".join(f"{name} = {json.dumps(str(path))}\n" for name, path in folders.items()) + 'user = "nobody"\n'


def plan_run(disk: Path, name: str, row: Row, *, image: str, key: str) -> list[str | Path]:
    file = {
        "path": FILE_PATH,
        "contents": base64.b64encode(FILE_CONTENT).decode(),
        "owner": "www-data",
        "group": "adm",
        "mode": FILE_MODE,
    }
    parameters = {
        "img_id": image,
        "img_format": "diskdump",
        "img_passwd": PASSWORD,
        "auth_keys": key,
        "img_personality": json.dumps([file]),
        **({"img_properties": json.dumps(dict(row.properties))} if row.properties else {}),
    }
    nic = f"mac={MAC},ip={ADDRESS},subnet={GATEWAY.rsplit('.', 1)[0]}.0/{PREFIX},gateway={GATEWAY}"
    given = [word for parameter, value in parameters.items() for word in ("-O", f"{parameter}={value}")]
    command = TREE / "snf-image-host" / "snf-image"
    return [command, "run", "--disk", disk, "--hostname", name, "--nic", nic, *given]
