"""What every family's task of img_personality needs."""

from __future__ import annotations

import base64
import binascii

from snf_image_helper.image import ImageError
from synnefo_light.manifest import InjectedFile


def content_of(file: InjectedFile) -> bytes:
    try:
        return base64.b64decode(file.contents, validate=True)
    except binascii.Error as e:
        raise ImageError(f"the contents of {file.path} are not base64: {e}") from None
