"""Put what the image said about the network before out of effect, and keep it where its users find it."""

from __future__ import annotations

from collections.abc import Callable

from snf_image_helper.actions import Action, MakeFolder, RemoveFile, WriteFile
from snf_image_helper.distribution import is_file
from snf_image_helper.image import Files, ImageError, RootPath

SAVED = ".before-snf-image"
#: Bytes of one folder's files, which are in memory until they are written. Real ones have a few KiB.
FOLDER_LIMIT = 4 << 20


def plan_copy(files: Files, path: RootPath, saved: RootPath | None = None) -> list[Action]:
    """A copy of what is there, once: a second deployment does not overwrite the image's own.

    With the mode and owner of the original, since such files may hold keys.
    """
    saved = saved or RootPath(f"{path}{SAVED}")
    content, entry = files.read(path), files.entry(path)
    if content is None or entry is None or files.entry(saved) is not None:
        return []
    return [WriteFile(path=saved, content=content, mode=entry.mode, owner=(entry.owner, entry.group))]


def plan_folder_aside(files: Files, folder: RootPath, stale: Callable[[str], bool]) -> list[Action]:
    """As copies in a folder beside theirs, for readers that take whatever is in a folder."""
    saved = RootPath(f"{folder}{SAVED}")
    actions = _plan_each(files, folder, stale, saved)
    return [MakeFolder(path=saved, mode=0o700), *actions] if actions else []


def plan_files_aside(files: Files, folder: RootPath, stale: Callable[[str], bool]) -> list[Action]:
    """As copies beside them, for readers that look at the ending of names."""
    return _plan_each(files, folder, stale, None)


def _plan_each(files: Files, folder: RootPath, stale: Callable[[str], bool], saved: RootPath | None) -> list[Action]:
    """Raises ImageError when there is too much of them."""
    actions: list[Action] = []
    size = 0
    for name in files.names(folder):
        if stale(name) and is_file(files, folder / name):
            copy = plan_copy(files, folder / name, saved / name if saved is not None else None)
            size += sum(len(action.content) for action in copy if isinstance(action, WriteFile))
            if size > FOLDER_LIMIT:
                raise ImageError(
                    f"the files of {folder} that configure the network have over {FOLDER_LIMIT >> 20} MiB; "
                    "remove from the image what is not such a file"
                )
            actions += [*copy, RemoveFile(path=folder / name)]
    return actions
