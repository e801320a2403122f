"""What would be done to an image, said and not done. Pure; secrets do not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from snf_image_host.accel import Choice
from snf_image_host.exclusions import excluded_by
from snf_image_host.params import Parameters
from snf_image_host.plan import needs_helper
from snf_image_host.settings import Settings
from snf_image_host.sources import NoImage
from snf_image_host.vm import HelperImage, limit_of
from synnefo_light.ganeti import OsEnv
from synnefo_light.log import escape
from synnefo_light.manifest import Manifest
from synnefo_light.records import dump_json, plain
from synnefo_light.tasks import ALL, Phase, TaskInfo
from synnefo_light.units import human

HIDDEN: Final = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    name: str
    snf_image: str | None
    due: bool
    why: str  # why it is not due, or on what it depends


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Sizes in bytes; `size` is of the image's bytes as they come, None for `null`."""

    instance: str
    image: str
    size: int | None
    disks: tuple[int, ...]
    way: str  # how the image comes onto disk 0
    checks: tuple[str, ...]
    warnings: tuple[str, ...]
    helper: str | None  # version of the helper VM, None when none is started
    accel: str | None
    accel_reason: str | None
    limit_s: int | None
    memory_mib: int | None
    tasks: tuple[PlannedTask, ...]
    manifest: object


def preview(
    env: OsEnv,
    parameters: Parameters,
    settings: Settings,
    image: HelperImage,
    *,
    size: int | None,
    sizes: tuple[int, ...],
    manifest: Manifest | None,
    choice: Choice | None,
) -> Preview:
    helps = needs_helper(parameters, image.tasks)
    limit = limit_of(settings, choice.accel, converts=parameters.converts) if choice else None
    return Preview(
        instance=env.instance,
        image=parameters.image,
        size=size,
        disks=sizes,
        way=_way(parameters),
        checks=tuple(_checks(parameters)),
        warnings=tuple(escape(text) for text in parameters.warnings),
        helper=image.version if helps else None,
        accel=choice.accel if choice else None,
        accel_reason=choice.reason if choice else None,
        limit_s=limit,
        memory_mib=settings.memory_mib if helps else None,
        tasks=tuple(_planned(task, parameters, image, manifest) for task in image.tasks),
        manifest=shown_manifest(manifest) if manifest else None,
    )


def shown_manifest(manifest: Manifest) -> object:
    """The manifest without its secrets, and with lengths in place of contents."""

    def length(text: str) -> str:
        return f"({len(text)} characters of base64)"

    fields = plain(
        replace(
            manifest,
            files=tuple(replace(file, contents="") for file in manifest.files),
            custom_task=None,
            cloud_init=None,
            windows=replace(manifest.windows, answer_file=None) if manifest.windows else None,
        )
    )
    assert isinstance(fields, dict)
    fields["nonce"] = HIDDEN
    fields["passwords"] = [{"user": p.user, "clear" if p.clear else "hashed": HIDDEN} for p in manifest.passwords]
    for shown, file in zip(fields["files"], manifest.files, strict=True):
        shown["contents"] = length(file.contents)
    if manifest.custom_task is not None:
        fields["custom_task"] = length(manifest.custom_task)
    if manifest.cloud_init is not None:
        fields["cloud_init"] = {"userdata": length(manifest.cloud_init.userdata)}
    if manifest.windows is not None:
        fields["windows"]["product_key"] = HIDDEN if manifest.windows.product_key else None
        if manifest.windows.answer_file is not None:
            fields["windows"]["answer_file"] = length(manifest.windows.answer_file)
    return fields


def _way(parameters: Parameters) -> str:
    if isinstance(parameters.source, NoImage):
        return "nothing is copied; what disk 0 holds is customised"
    if parameters.stored is not None:
        return f"nothing is copied if disk 0 was made with origin={parameters.stored.name}; else its data onto disk 0"
    if parameters.converts:
        words = (parameters.source_format.value, parameters.compression.value)
        encoded = " in ".join(word for word in words if word != "none")
        return f"converted from {encoded} onto disk 0, inside the helper VM"
    behind = "" if parameters.image_format.value == "diskdump" else " behind a partition table of ours"
    return f"copied byte by byte onto disk 0{behind} ({parameters.image_format.value})"


def _checks(parameters: Parameters) -> Iterator[str]:
    if parameters.checksum is not None:
        yield f"{parameters.checksum.algorithm}:{parameters.checksum.hexdigest}"
    if parameters.signature is not None:
        yield "OpenPGP signature"


def _planned(task: TaskInfo, parameters: Parameters, image: HelperImage, manifest: Manifest | None) -> PlannedTask:
    why = _why_not(task, parameters, image, manifest)
    due = why is None
    if due and parameters.properties.os_family is None and task.os_families != ALL:
        why = "if the image is of " + " or ".join(sorted(family.value for family in task.os_families))
    return PlannedTask(name=task.name, snf_image=task.snf_image, due=due, why=why or "")


def _why_not(task: TaskInfo, parameters: Parameters, image: HelperImage, manifest: Manifest | None) -> str | None:
    properties = parameters.properties
    if task.name in properties.skip:
        named = ", ".join(excluded_by(task, image.tasks))
        return f"left out by a property ({named})"
    if task.phase is Phase.SOURCE and not parameters.converts:
        return "there is nothing to convert"
    if manifest is None:
        return "no helper VM is started"
    if properties.os_family is not None and properties.os_family not in task.os_families:
        return f"not for {properties.os_family.value}"
    if properties.cloud_init and "cloud-init" in task.groups:
        return "cloud-init does it in the instance"
    return None


def render(shown: Preview) -> Iterator[str]:
    """For a person."""
    size = f", {human(shown.size)}" if shown.size is not None else ""
    yield f"instance  {shown.instance}"
    yield f"image     {shown.image}{size}"
    yield from (f"disk {n}    {human(size)}" for n, size in enumerate(shown.disks))
    yield f"way       {shown.way}"
    yield from (f"check     {check}" for check in shown.checks)
    yield from (f"warning   {text}" for text in shown.warnings)
    if shown.helper is None:
        yield "helper    no helper VM is started: there is nothing to change"
    else:
        accel = f"{shown.accel}: {shown.accel_reason}" if shown.accel else "KVM or TCG is found out when it starts"
        yield f"helper    {shown.helper}, {accel}"
        yield f"limits    {shown.memory_mib} MiB of memory" + (f", {shown.limit_s} s" if shown.limit_s else "")
    for n, task in enumerate(shown.tasks, 1):
        state = "due" if task.due else "-"
        yield f"task      {n:>2} {task.name:<24} {state:<4}{task.why}".rstrip()
    if isinstance(shown.manifest, Mapping):
        for key, value in sorted(shown.manifest.items()):
            if value not in (None, [], "", False):
                yield f"manifest  {key} = {escape(dump_json(value).decode())}"
