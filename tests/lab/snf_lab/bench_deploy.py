"""How long a deployment takes, and how long libguestfs takes for the same work on the same image and disk size.

A round is: order the demo's instance, log in at its console, remove it; then each peer on a fresh copy. Ours and the
peers take turns, so that other load on the machine falls on all of them, and no guest runs while a peer is measured.

What is compared: `helper_s` (our VM from QEMU's start to its end: grow, check, all edits) with `libguestfs_s` (one
guestfish session: the same). Neither counts the copy of the image, which is the same bytes for both.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snf_lab import apt, demo, fabric
from snf_lab.bench_peers import Edits, Peers, Sample
from snf_lab.guest_deploy import Deployed, Order, SshKey, deploy, log_in_at_console, remove_instance, show_image
from snf_lab.guest_image import GuestImage
from snf_lab.guest_recipe import GuestRecipe
from snf_lab.lab import Lab
from snf_lab.node import Node
from snf_lab.progress import Progress, render_table
from synnefo_light.run import run

MIB = 1 << 20
PASSWORD = "bench-password"
# Of www-data and adm, in every Debian (base-passwd): libguestfs takes numbers only.
FILE_UID, FILE_GID = 33, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OurSample:
    """One deployment. Seconds and MiB."""

    deploy_s: float
    copy_s: float
    helper_s: float
    helper_boot_s: float
    helper_cpu_s: float
    login_s: float
    host_peak_rss_MiB: float
    helper_peak_rss_MiB: float


def run_bench(lab: Lab, *, release: str, rounds: int, peers: bool) -> Mapping[str, object]:
    """Measure, and return the figures: medians under the plain names, every sample under `samples`."""
    lab.ensure_up(nodes=1, release=release)
    with lab.locked():
        image = demo.ensure_image(lab, GuestRecipe())
        node, progress = lab.master, lab.progress
        key = SshKey(node, folder=demo.FOLDER)
        order = demo.plan_order(guest="bookworm", authorized_key=key.ensure(), password=PASSWORD)
        show_image(node, image, name=order.image)
        ours: list[OurSample] = []
        theirs: dict[str, list[Sample]] = {"libguestfs": [], "virt_customize": [], "virt_resize": []}
        accel = ""
        tools: Peers | None = None
        appliance: Sample | None = None
        for number in range(1, rounds + 1):
            sample, accel = measure_deployment(node, order, progress=progress, title=f"round {number}: deploy")
            ours.append(sample)
            if not peers:
                continue
            if tools is None:
                tools = ready_peers(lab, accel=accel)
                with progress.step("boot libguestfs's appliance alone"):
                    appliance = tools.warm_up()
            measure_peers(tools, order, image, into=theirs, progress=progress, number=number)
    figures = summarise(ours, {name: samples for name, samples in theirs.items() if samples}, accel=accel)
    if appliance is not None:
        figures["libguestfs_boot_s"] = appliance.wall_s
    figures["load_1min"] = round(os.getloadavg()[0], 2)
    progress.say()
    progress.say(render_table(comparison_table(figures)))
    return figures


def measure_deployment(node: Node, order: Order, *, progress: Progress, title: str) -> tuple[OurSample, str]:
    """One deployment up to the login at the console. The instance is removed before and after."""
    remove_instance(node, order.name)
    with progress.step(title) as step:
        deployed = deploy(node, order, step=step)
        log_in_at_console(node, order.name, password=order.password, told=lambda text: None)
        login_s = time.monotonic() - deployed.started
    remove_instance(node, order.name)
    return our_sample(deployed, login_s=login_s), deployed.figures.accel


def our_sample(deployed: Deployed, *, login_s: float) -> OurSample:
    figures = deployed.figures
    return OurSample(
        deploy_s=round(deployed.deploy_s, 2),
        copy_s=round(figures.copy_ms / 1000, 2),
        helper_s=round(figures.helper_ms / 1000, 2),
        helper_boot_s=round(figures.helper_boot_ms / 1000, 2),
        helper_cpu_s=round(figures.helper_cpu_ms / 1000, 2),
        login_s=round(login_s, 2),
        host_peak_rss_MiB=round(figures.host_peak_rss / MIB, 1),
        helper_peak_rss_MiB=round(figures.helper_peak_rss / MIB, 1),
    )


def ready_peers(lab: Lab, *, accel: str) -> Peers:
    log = lab.state.log / "libguestfs.log"
    tools = Peers(cache=lab.state.cache / "peers", settings=apt.read_settings(run), log=log, accel=accel)
    with lab.progress.step("make a tree with libguestfs", log=log):
        tools.ensure_tree()
    return tools


def measure_peers(
    tools: Peers,
    order: Order,
    image: GuestImage,
    *,
    into: Mapping[str, list[Sample]],
    progress: Progress,
    number: int,
) -> None:
    edits, disk_size = plan_edits(order), order.disk_gib << 30
    with progress.step(f"round {number}: guestfish, in place"):
        into["libguestfs"].append(tools.guestfish(edits, image=image.path, disk_size=disk_size))
    with progress.step(f"round {number}: virt-customize"):
        into["virt_customize"].append(tools.virt_customize(edits, image=image.path, disk_size=disk_size))
    with progress.step(f"round {number}: virt-resize"):
        into["virt_resize"].append(tools.virt_resize(image=image.path, disk_size=disk_size))


def plan_edits(order: Order) -> Edits:
    """The order in the peers' words: what snf-image works out from Ganeti's environment is written out here."""
    prefix = fabric.INSTANCE_NETWORK.split("/")[1]
    return Edits(
        hostname=order.name,
        password=order.password,
        authorized_key=order.authorized_key,
        interfaces=(
            "auto lo\niface lo inet loopback\n\nauto ens13\niface ens13 inet static\n"
            f"    address {fabric.INSTANCES}.5/{prefix}\n    gateway {fabric.INSTANCE_GATEWAY}\n"
        ),
        resolv_conf=f"nameserver {fabric.INSTANCE_GATEWAY}\n",
        file_path=order.file_path,
        file_content=order.file_content.decode(),
        file_uid=FILE_UID,
        file_gid=FILE_GID,
        file_mode=order.file_mode,
    )


def summarise(ours: Sequence[OurSample], theirs: Mapping[str, Sequence[Sample]], *, accel: str) -> dict[str, object]:
    names = OurSample.__dataclass_fields__
    by_name = {name: [float(getattr(sample, name)) for sample in ours] for name in names}
    for peer, samples in theirs.items():
        by_name[f"{peer}_s"] = [sample.wall_s for sample in samples]
        by_name[f"{peer}_cpu_s"] = [sample.cpu_s for sample in samples]
    figures: dict[str, object] = {name: round(statistics.median(values), 2) for name, values in by_name.items()}
    return {**figures, "accel": accel, "rounds": len(ours), "samples": by_name}


def comparison_table(figures: Mapping[str, object]) -> Sequence[tuple[str, str, str, str]]:
    """Ours beside the peers: seconds of the clock, of CPU, and how many times ours that is."""
    rows = [("", "clock", "CPU", "times ours")]
    base = figures["helper_s"]
    for title, name in (
        ("our helper VM: grow, check, all edits", "helper"),
        ("guestfish: the same, one session", "libguestfs"),
        ("virt-customize: the edits alone", "virt_customize"),
        ("virt-resize: the growing alone", "virt_resize"),
    ):
        clock, cpu = figures.get(f"{name}_s"), figures.get(f"{name}_cpu_s")
        if isinstance(clock, float) and isinstance(cpu, float) and isinstance(base, float) and base > 0:
            rows.append((title, f"{clock:.1f} s", f"{cpu:.1f} s", f"{clock / base:.1f}"))
    return rows
