"""Put what the image said about the network before out of effect, and keep it where its users find it."""

from __future__ import annotations

from collections.abc import Callable

from snf_image_helper.actions import Action, MakeFolder, RemoveFile, WriteFile
from snf_image_helper.distribution import is_file
from snf_image_helper.image import Files, RootPath

SAVED = ".before-snf-image"


def plan_copy(files: Files, path: RootPath, saved: RootPath | None = None) -> list[Action]:
    """A copy of what is there, once: a second deployment does not overwrite the image's own.

    With the mode and owner of the original, since such files may hold keys.
    """
    saved = saved or RootPath(f"{path}{SAVED}")
    content, entry = files.read(path), files.entry(path)
    if content is None or entry is None or files.entry(saved) is not None:
        return []
    return [WriteFile(path=saved, content=content, mode=entry.mode, owner=(entry.owner, entry.group))]


def plan_aside(files: Files, path: RootPath) -> list[Action]:
    """As a copy beside it, for readers that look at the ending of names."""
    return [*plan_copy(files, path), RemoveFile(path=path)] if is_file(files, path) else []


def plan_folder_aside(files: Files, folder: RootPath, stale: Callable[[str], bool]) -> list[Action]:
    """As copies in a folder beside theirs, for readers that take whatever is in a folder."""
    names = [name for name in files.names(folder) if stale(name) and is_file(files, folder / name)]
    saved = RootPath(f"{folder}{SAVED}")
    actions: list[Action] = [MakeFolder(path=saved, mode=0o700)] if names else []
    for name in names:
        actions += [*plan_copy(files, folder / name, saved / name), RemoveFile(path=folder / name)]
    return actions
