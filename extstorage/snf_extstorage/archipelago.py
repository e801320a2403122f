"""The provider `archipelago`: volumes of the engine that the site configured, cloned from images of the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from snf_extstorage.levels import watch_level
from snf_extstorage.provider import Parameter, VolumeProvider
from snf_extstorage.providers import open_volumes
from snf_extstorage.settings import load_settings
from snf_extstorage.volume import NotFound, Origin, Volumes
from synnefo_light.errors import UserError
from synnefo_light.ganeti import CreateEnv, SnapshotEnv, installed_version, parse_volume_name
from synnefo_light.units import bytes_of

PARAMETERS: Final = (
    Parameter(name="origin", help="What the disk begins as: the name of an image or snapshot, or map:HASH"),
    Parameter(name="adopt", help="Name of a volume that is there already and becomes this disk"),
)


class Archipelago(VolumeProvider):
    """`watch` is called when space was taken; `userspace`: whether Ganeti can hand QEMU the address of a disk."""

    def __init__(
        self,
        volumes: Volumes,
        find_origin: Callable[[str], Origin],
        watch: Callable[[], object] = lambda: None,
        *,
        userspace: bool = True,
    ) -> None:
        super().__init__(volumes)
        self._userspace = userspace
        self._find_origin = find_origin
        self._watch = watch

    def create(self, env: CreateEnv) -> None:
        origin, adopt = env.params.get("origin"), env.params.get("adopt")
        if origin and adopt:
            raise UserError(f"volume {env.volume} is to have an origin and to adopt {adopt}; give one of the two")
        if env.access == "userspace" and not self._userspace:
            raise UserError(
                f"volume {env.volume} is to have access=userspace, but this Ganeti hands no plain file to QEMU; "
                "leave access out, which is kernelspace"
            )
        if origin:
            self._clone(origin, env)
        elif adopt:
            source = parse_volume_name(adopt, named="adopt")
            self._volumes.adopt(source, env.volume, uuid=env.uuid, size=bytes_of(env.size))
        else:
            self._volumes.create(env.volume, uuid=env.uuid, size=bytes_of(env.size))
        self._watch()

    def snapshot(self, env: SnapshotEnv) -> None:
        super().snapshot(env)
        self._watch()

    def _clone(self, text: str, env: CreateEnv) -> None:
        found = self._find_origin(text)
        try:
            self._volumes.clone(found, env.volume, uuid=env.uuid, size=bytes_of(env.size))
        except NotFound:
            # A snapshot that was committed in between is dropped; the base of its map has the same bytes.
            now = self._find_origin(text)
            if now == found:
                raise
            self._volumes.clone(now, env.volume, uuid=env.uuid, size=bytes_of(env.size))


def provider(params: Mapping[str, str]) -> Archipelago:
    """See providers.ProviderModule. All our disks are in the one place that the site configured."""
    settings = load_settings()
    volumes = open_volumes(settings)

    def find(text: str) -> Origin:
        from snf_extstorage.origins import find_origin
        from snf_extstorage.stores import open_catalog

        return find_origin(open_catalog(settings, volumes), text, engine=settings.engine)

    userspace = settings.engine == "rados" or not _hands_out_devices_only()
    return Archipelago(volumes, find, lambda: watch_level(settings, volumes), userspace=userspace)


def _hands_out_devices_only() -> bool:
    """Ganeti 3.1 takes addresses of RBD and Gluster and refuses a file's when the instance starts (seen)."""
    version = installed_version()
    return version is not None and version >= (3, 1)
