"""The demo: an image that somebody else made becomes a VM on a real Ganeti, and the VM says that all is as ordered.

    lab up ─► guest image (cached) ─► gnt-instance add ─► boot ─► serial login ─► SSH ─► checks, times, how to go on

Each part may be interrupted and is taken up by the next run: the lab and the image finish what is there, the instance
of a former run is removed and ordered anew.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snf_lab import apt, fabric, guest_facts
from snf_lab.guest_deploy import Deployed, Order, SshKey, deploy, log_in_at_console, remove_instance, show_image
from snf_lab.guest_facts import Check, Expected, checks_table, parse_seen, plan_checks
from snf_lab.guest_image import GuestImage, ensure_guest_image
from snf_lab.guest_recipe import DEBIAN_NUMBER, GuestRecipe, Release
from snf_lab.lab import Lab
from snf_lab.node import Node
from snf_lab.progress import Progress, render_seconds, render_table
from synnefo_light.errors import Error
from synnefo_light.run import run

INSTANCE = "demo"
FOLDER = "/root/demo"
DISK_GIB = 4
MIB = 1 << 20


class ChecksFailed(Error):
    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered:
    """A guest that was logged into, both ways, and what it said."""

    console_answer: str
    login_s: float  # from the order to the shell at the console
    ssh_s: float  # from the order to the answer over SSH
    facts: str
    presented_key: str


def run_demo(lab: Lab, *, release: str = "bookworm", guest: Release = "bookworm") -> int:
    """The whole demo. Returns how many checks held; raises ChecksFailed when one did not."""
    progress = lab.progress
    before = dict(progress.taken)
    started = time.monotonic()
    lab.ensure_up(nodes=1, release=release)
    with lab.locked():
        image = ensure_image(lab, GuestRecipe(release=guest))
        node = lab.master
        key = SshKey(node, folder=FOLDER)
        order = plan_order(guest=guest, authorized_key=key.ensure(), password=f"demo-{secrets.token_hex(4)}")
        show_image(node, image, name=order.image)
        deployed, entered = bring_up(node, order, key, progress=progress)
    checks = judge(order, deployed=deployed, entered=entered, image=image)
    steps = {title: spent for title, spent in progress.taken.items() if before.get(title) != spent}
    progress.say()
    progress.say(render_table(checks_table(checks)))
    progress.say()
    progress.say(render_table(times_table(steps, deployed, entered, total_s=time.monotonic() - started)))
    progress.say()
    progress.say(render_next(order, deployed, key))
    failed = [check for check in checks if not check.ok]
    if failed:
        first = failed[0]
        raise ChecksFailed(
            f"{len(failed)} of {len(checks)} checks failed; the first: {first.claim}: "
            f"{first.seen} was seen, {first.expected} was expected"
        )
    return len(checks)


def ensure_image(lab: Lab, recipe: GuestRecipe) -> GuestImage:
    log = lab.state.log / f"guest-image-{recipe.release}.log"
    with lab.progress.step(f"make a Debian {DEBIAN_NUMBER[recipe.release]} image", log=log):
        return ensure_guest_image(recipe, cache=lab.state.images, settings=apt.read_settings(run), log=log)


def plan_order(*, guest: Release, authorized_key: str, password: str) -> Order:
    return Order(
        name=INSTANCE,
        image=f"debian-{DEBIAN_NUMBER[guest]}.raw",
        disk_gib=DISK_GIB,
        password=password,
        authorized_key=authorized_key,
        file_path="/srv/demo/welcome",
        # Commas, quotes and a backslash: they pass through Ganeti's own syntax, JSON and base64 on their way.
        file_content=b'Deployed, "as ordered" \\ by snf-image.\n',
        file_owner="www-data",
        file_group="adm",
        file_mode=0o640,
    )


def bring_up(node: Node, order: Order, key: SshKey, *, progress: Progress) -> tuple[Deployed, Entered]:
    """Order the instance anew, and enter it by both doors."""
    with progress.step("remove the former demo instance"):
        remove_instance(node, order.name)
        key.forget_hosts()
    with progress.step("gnt-instance add") as step:
        deployed = deploy(node, order, step=step)
    with progress.step("boot it and log in at the serial console") as step:

        def tell(text: str) -> None:
            step.note = text[:60]

        answer = log_in_at_console(node, order.name, password=order.password, told=tell)
        step.note = ""
        login_s = time.monotonic() - deployed.started
    with progress.step("log in over SSH and look around"):
        facts = key.run(deployed.address, guest_facts.SCRIPT, order.file_path)
        presented = key.presented(deployed.address)
    return deployed, Entered(
        console_answer=answer,
        login_s=login_s,
        ssh_s=time.monotonic() - deployed.started,
        facts=facts,
        presented_key=presented,
    )


def judge(order: Order, *, deployed: Deployed, entered: Entered, image: GuestImage) -> tuple[Check, ...]:
    expected = Expected(
        hostname=order.name,
        address=deployed.address,
        prefix=int(fabric.INSTANCE_NETWORK.split("/")[1]),
        gateway=fabric.INSTANCE_GATEWAY,
        disk_size=order.disk_gib << 30,
        file_owner=f"{order.file_owner}:{order.file_group}",
        file_mode=order.file_mode,
        file_content=order.file_content,
    )
    return plan_checks(
        parse_seen(entered.facts),
        expected=expected,
        image=image.facts,
        console_answer=entered.console_answer,
        presented_key=entered.presented_key,
    )


def times_table(
    steps: Mapping[str, float], deployed: Deployed, entered: Entered, *, total_s: float
) -> Sequence[tuple[str, str]]:
    """Where the time went. Figures of the deployment itself are indented below the command that they are part of."""
    figures = deployed.figures
    rows: list[tuple[str, str]] = []
    for title, spent_s in steps.items():
        rows.append((title, render_seconds(spent_s)))
        if title == "gnt-instance add":
            rows.append((f"  copy {figures.copied // MIB} MiB, holes skipped", render_seconds(figures.copy_ms / 1000)))
            rows.append((f"  helper VM ({figures.accel})", render_seconds(figures.helper_ms / 1000)))
    rows.append(("from the order to the login at the console", render_seconds(entered.login_s)))
    rows.append(("all of it", render_seconds(total_s)))
    return rows


def render_next(order: Order, deployed: Deployed, key: SshKey) -> str:
    return "\n".join(
        (
            f"{order.name} runs at {deployed.address} (instances run under {deployed.figures.accel.upper()}).",
            "  ./lab sh 1      a shell on the node; in it:",
            f"                    ssh -i {key.folder}/key root@{deployed.address}",
            f"                    gnt-instance console {order.name}   (root, {order.password}; Ctrl-] leaves)",
            "  ./lab down      end it; the cache stays, so the next time is quicker",
        )
    )
