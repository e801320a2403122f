"""The provider `archipelago`: volumes of the engine that the site configured, cloned from images of the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from snf_extstorage.provider import Parameter
from snf_extstorage.providers import open_volumes
from snf_extstorage.settings import load_settings
from snf_extstorage.volume import Attachment, FromVolume, Volumes
from synnefo_light.ganeti import CreateEnv, GrowEnv, OpenEnv, SetInfoEnv, SnapshotEnv, VolumeEnv
from synnefo_light.units import bytes_of

PARAMETERS: Final = (Parameter(name="adopt", help="Name of a volume that is there already and becomes this disk"),)


class Archipelago:
    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def create(self, env: CreateEnv) -> None:
        adopt = env.params.get("adopt")
        if adopt:
            self._volumes.adopt(adopt, env.volume, uuid=env.uuid, size=bytes_of(env.size))
        else:
            self._volumes.create(env.volume, uuid=env.uuid, size=bytes_of(env.size))

    def remove(self, env: VolumeEnv) -> None:
        self._volumes.remove(env.volume)

    def grow(self, env: GrowEnv) -> None:
        self._volumes.grow(env.volume, bytes_of(env.new))

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
    return Archipelago(open_volumes(load_settings()))
