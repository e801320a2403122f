"""The provider `archipelago`: volumes of the engine that the site configured, cloned from images of the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from snf_extstorage.provider import Parameter
from snf_extstorage.providers import open_volumes
from snf_extstorage.settings import load_settings
from snf_extstorage.volume import Attachment, FromVolume, Origin, Volumes
from synnefo_light.errors import UserError
from synnefo_light.ganeti import CreateEnv, GrowEnv, OpenEnv, SetInfoEnv, SnapshotEnv, VolumeEnv
from synnefo_light.units import bytes_of

PARAMETERS: Final = (
    Parameter(name="origin", help="What the disk begins as: the name of an image or snapshot, or map:HASH"),
    Parameter(name="adopt", help="Name of a volume that is there already and becomes this disk"),
)


class Archipelago:
    def __init__(self, volumes: Volumes, find_origin: Callable[[str], Origin]) -> None:
        self._volumes = volumes
        self._find_origin = find_origin

    def create(self, env: CreateEnv) -> None:
        origin, adopt = env.params.get("origin"), env.params.get("adopt")
        if origin and adopt:
            raise UserError(f"volume {env.volume} is to have an origin and to adopt {adopt}; give one of the two")
        if origin:
            found = self._find_origin(origin)
            self._volumes.clone(found, env.volume, uuid=env.uuid, size=bytes_of(env.size))
        elif adopt:
            self._volumes.adopt(adopt, env.volume, uuid=env.uuid, size=bytes_of(env.size))
        else:
            self._volumes.create(env.volume, uuid=env.uuid, size=bytes_of(env.size))

    def remove(self, env: VolumeEnv) -> None:
        self._volumes.remove(env.volume)

    def grow(self, env: GrowEnv) -> None:
        self._volumes.grow(env.volume, bytes_of(env.new))
        from snf_extstorage.guests import instance_of, tell_size

        instance = instance_of(self._volumes.facts(env.volume).info)
        if instance is not None and env.uuid is not None:
            tell_size(instance, env.uuid, bytes_of(env.new))

    def attach(self, env: VolumeEnv) -> Attachment:
        return self._volumes.attach(env.volume)

    def detach(self, env: VolumeEnv) -> None:
        self._volumes.detach(env.volume)

    def snapshot(self, env: SnapshotEnv) -> None:
        """Ganeti attaches, reads and removes what it snapshots as if it were a volume, so it is made one: a clone.

        One of that name is what an export left that died; it goes, unless it is in use.
        """
        size = self._volumes.facts(env.volume).size  # and not Ganeti's book, which a failed grow leaves behind
        self._volumes.remove(env.snapshot)
        self._volumes.clone(FromVolume(volume=env.volume), env.snapshot, uuid=None, size=size)

    def set_info(self, env: SetInfoEnv) -> None:
        self._volumes.set_info(env.volume, env.text)

    def open(self, env: OpenEnv) -> None:
        self._volumes.open(env.volume, exclusive=env.exclusive)

    def close(self, env: VolumeEnv) -> None:
        self._volumes.close(env.volume)


def provider(params: Mapping[str, str]) -> Archipelago:
    """See providers.ProviderModule. All our disks are in the one place that the site configured."""
    settings = load_settings()
    volumes = open_volumes(settings)

    def find(text: str) -> Origin:
        from snf_extstorage.origins import find_origin
        from snf_extstorage.stores import open_catalog

        return find_origin(open_catalog(settings, volumes), text, engine=settings.engine)

    return Archipelago(volumes, find)
