"""Folders that a file to be written needs."""

from __future__ import annotations

from snf_image_helper.actions import MakeFolder
from snf_image_helper.image import Files, ImageError, Kind, RootPath


def plan_folders(files: Files, folder: RootPath, *, made: set[RootPath] | None = None) -> list[MakeFolder]:
    """`folder` and those above it that are not there, the upper ones first. `made` are planned already; it grows.

    Raises ImageError when something else than a folder is in the way.
    """
    made = set() if made is None else made
    missing: list[RootPath] = []
    while folder.name and folder not in made:
        entry = files.entry(folder)
        if entry is not None:
            if entry.kind is not Kind.FOLDER:
                raise ImageError(f"a file is to be written below {folder}, which is not a folder in the image")
            break
        missing.append(folder)
        made.add(folder)
        folder = folder.parent
    return [MakeFolder(path=path) for path in reversed(missing)]
