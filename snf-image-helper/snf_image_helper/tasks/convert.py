"""Write disk 0 from an image that is compressed, or no raw disk: the bytes as they were published, read only here."""

from __future__ import annotations

from collections.abc import Sequence

from snf_image_helper.actions import Action, CheckSource, WriteSource
from snf_image_helper.image import Image, Skipped
from snf_image_helper.source_headers import SourceError
from synnefo_light.manifest import Compression, Manifest, SourceFormat
from synnefo_light.tasks import ALL, Phase, TaskInfo

INFO = TaskInfo(
    name="convert",
    phase=Phase.SOURCE,
    summary="Decompress or convert the image onto disk 0",
    os_families=ALL,
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    source = manifest.source
    if source is None:
        raise Skipped("the image is on the disk already")
    if source.format is not SourceFormat.RAW and source.compression is not Compression.NONE:
        raise SourceError(
            f"the image is {source.format.value} within {source.compression.value}, which there is no place to unpack; "
            "publish it unpacked, or as a compressed raw disk"
        )
    return [CheckSource(source=source), WriteSource(source=source)]
