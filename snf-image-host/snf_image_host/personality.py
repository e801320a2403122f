"""img_personality: files to put into the image, as a JSON array of objects."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from typing import Final

from synnefo_light.log import escape
from synnefo_light.manifest import FRAMED_LIMIT, InjectedFile
from synnefo_light.records import RecordError, build, load_json

FILES: Final = 1000
NAME_BYTES: Final = 255  # NAME_MAX of Linux
ID_LIMIT: Final = (1 << 32) - 2  # the last one means "no owner" to chown(2)


def parse_personality(text: str) -> tuple[InjectedFile, ...]:
    """Files with `path`, `contents` (base64), and optionally `owner`, `group`, `mode` (decimal, default 288 = 0440).

    Paths come out normalised: "/a//./b" is "/a/b", and the same file twice is refused in any spelling.
    Blanks and newlines in `contents` are taken out. Raises ValueError naming the entry and the key.
    """
    data = load_json(text.encode("utf-8", "surrogateescape"), limit=FRAMED_LIMIT)
    if not isinstance(data, list):
        raise RecordError("it is not a JSON array of files")
    if len(data) > FILES:
        raise RecordError(f"it has {len(data)} files, at most {FILES} are accepted")
    files: dict[str, InjectedFile] = {}
    for n, item in enumerate(data):
        file = _one(build(item, InjectedFile, place=f"entry {n}"), n)
        if file.path in files:
            raise RecordError(f"entry {n}: the path {file.path!r} stands twice")
        files[file.path] = file
    return tuple(files.values())


def _one(file: InjectedFile, n: int) -> InjectedFile:
    parts = file.path.split("/")
    if parts[-1] == ".":
        raise RecordError(f"entry {n}: path {file.path!r} names a folder, not a file")
    if any(len(part.encode()) > NAME_BYTES for part in parts):
        raise RecordError(f"entry {n}: a name in the path {escape(file.path, limit=80)!r} has over {NAME_BYTES} bytes")
    for name in (file.owner, file.group):
        if name.isascii() and name.isdigit() and int(name) > ID_LIMIT:
            raise RecordError(f"entry {n}: the number {name} of an owner or group is over {ID_LIMIT}")
    path = "/" + "/".join(part for part in parts if part not in ("", "."))
    contents = "".join(file.contents.split())
    try:
        base64.b64decode(contents, validate=True)
    except (binascii.Error, ValueError):
        raise RecordError(f"entry {n}: the contents of {file.path!r} are not base64") from None
    return dataclasses.replace(file, path=path, contents=contents)
