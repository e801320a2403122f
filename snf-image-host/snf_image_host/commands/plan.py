"""`snf-image plan`: what would be done to an image. Asks no cluster, needs not be root, changes nothing."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Final

from snf_image_host import accel, instance, intake
from snf_image_host.commands import Out
from snf_image_host.create import installed_helper
from snf_image_host.params import Parameters
from snf_image_host.plan import check_parameters, check_size, needs_helper, plan_disks, plan_manifest
from snf_image_host.preview import Preview, preview, render
from snf_image_host.request import read_parameters
from snf_image_host.settings import Settings
from snf_image_host.sources import NoImage
from synnefo_light.errors import UserError
from synnefo_light.ganeti import OsEnv
from synnefo_light.manifest import Source, encode
from synnefo_light.records import dump_json
from synnefo_light.units import MIB, parse_size

NAME: Final = "plan"
SUMMARY: Final = "print what would be done to an image; asks no cluster, changes nothing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--disk-size", action="append", required=True, metavar="SIZE", help="of disk 0, then of disk 1, ..."
    )
    instance.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def run(settings: Settings, arguments: argparse.Namespace, out: Out) -> int:
    sizes = [parse_size(text) for text in arguments.disk_size]
    if min(sizes) < MIB:
        raise UserError(f"--disk-size: a disk of {min(sizes)} bytes is none; give at least 1M")
    disks = [instance.Disk(path=Path(f"/disk{n}"), size=size) for n, size in enumerate(sizes)]
    show(plan(instance.environment(arguments, disks), settings, tuple(sizes)), out, json=arguments.json)
    return 0


def show(planned: Preview, out: Out, *, json: bool) -> None:
    if json:
        out(dump_json(planned).decode())
        return
    for line in render(planned):
        out(line)


def plan(env: OsEnv, settings: Settings, sizes: tuple[int, ...]) -> Preview:
    """All that `create` decides before it touches a disk. Fetches what parameters name. Raises Error as it would."""
    helper = installed_helper(settings)
    parameters = read_parameters(env.parameters, env.variant, settings, helper)
    check_parameters(parameters, settings, helper)
    swap = parameters.properties.swap
    used = plan_disks(env.disks, swap_disk=swap.disk if swap else None)
    with contextlib.ExitStack() as opened:
        size: int | None = None
        if not isinstance(parameters.source, NoImage):
            size = _size(parameters, settings, opened)
            least = min(size, sizes[0]) if parameters.converts else size
            lead = intake.lead_of(parameters.image_format)
            check_size(parameters.image, size=least, disk=sizes[0], instance=env.instance, lead=lead)
    manifest = plan_manifest(
        env,
        parameters,
        settings,
        sizes=sizes[: len(used)],
        image=helper,
        nonce="0" * 32,
        source=Source(format=parameters.source_format, compression=parameters.compression, size=size)
        if size is not None and parameters.converts
        else None,
        answer_file=intake.answer_file(parameters, settings),
    )
    if manifest is not None:
        encode(manifest)
    choice = accel.foresee(helper, settings) if needs_helper(parameters, helper.tasks) else None
    return preview(env, parameters, settings, helper, size=size, sizes=sizes, manifest=manifest, choice=choice)


def _size(parameters: Parameters, settings: Settings, opened: contextlib.ExitStack) -> int:
    """Of the image's bytes as they come. What is of the store is not opened for that."""
    if parameters.stored is not None:
        return parameters.stored.size
    intake.signature_of(parameters, settings)
    source = intake.open_image(parameters, settings, opened)
    if parameters.converts:
        intake.check_staging(source, settings, image=parameters.image)
    return source.size
