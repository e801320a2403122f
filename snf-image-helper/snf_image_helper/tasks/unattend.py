"""The answer file for the first boot of Windows, and the scripts that it and SetupComplete.cmd run.

Which one: that of os_answer_file; else the image's own, unless IGNORE_UNATTEND; else ours. What other tasks have to
say to Setup they write into the file that this one leaves.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from snf_image_helper import answer_file, windows_scripts
from snf_image_helper.actions import Action, MakeFolder, RemoveFile, Warn, WriteFile
from snf_image_helper.answer_file import SHELL, AnswerFile, AnswerFileError
from snf_image_helper.image import Files, Image, ImageError, RootPath
from snf_image_helper.windows import GENERALIZED, Facts, places, target
from synnefo_light.manifest import Manifest, Windows
from synnefo_light.tasks import WINDOWS, Phase, TaskInfo

INFO = TaskInfo(
    name="unattend",
    snf_image="InstallUnattend",
    os_families=WINDOWS,
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Give Windows an answer file for its first boot",
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    _refuse_what_others_have(manifest)
    facts = image.windows()
    if facts.image_state != GENERALIZED:
        raise ImageError(
            f"the image's Windows was not generalised (its ImageState is {facts.image_state or 'not set'}); run "
            "`sysprep /generalize /oobe /shutdown` in it, or leave its files alone with EXCLUDE_MOUNTED_TASKS=yes"
        )
    wanted = manifest.windows or Windows()
    where = target(facts)
    chosen, came_from = _choose(image.files, facts, wanted)
    if wanted.product_key is not None:
        chosen.set("specialize", SHELL, "ProductKey", wanted.product_key.reveal())
    chosen.run_synchronously(windows_scripts.RUN_SPECIALIZE, "snf-image")
    actions: list[Action] = [*_folders(image.files, where.parent)]
    actions.append(WriteFile(path=where, content=chosen.render(), mode=windows_scripts.PRIVATE, owner=(0, 0)))
    before = places(facts)[: places(facts).index(where)]
    actions += [RemoveFile(path=path) for path in before if image.files.entry(path) is not None]
    if facts.unattend_file is not None and came_from is None and places(facts)[0] != where:
        actions.append(Warn(text=f"the image's registry names the answer file {facts.unattend_file[:200]}, elsewhere"))
    if manifest.swap is not None and "swap" not in manifest.skip:
        actions.append(Warn(text="SWAP is left out: Windows makes its own swap file"))
    return [*actions, *windows_scripts.install(image.files, where)]


def _refuse_what_others_have(manifest: Manifest) -> None:
    if manifest.cloud_init is not None:
        raise ImageError("CLOUD_INIT is for systems with cloud-init; Windows is customised by its answer file")
    if manifest.custom_task is not None and "custom_task" not in manifest.skip:
        raise ImageError("CUSTOM_TASK runs programs of a Linux image; Windows can be given RunSynchronous commands")


def _choose(files: Files, facts: Facts, wanted: Windows) -> tuple[AnswerFile, RootPath | None]:
    """The answer file to begin with, and where in the image it was."""
    if wanted.answer_file is not None:
        return answer_file.parse(base64.b64decode(wanted.answer_file), facts.architecture), None
    if not wanted.ignore_unattend:
        for path in places(facts):
            raw = files.read(path)
            if raw is None:
                continue
            try:
                found = answer_file.parse(raw, facts.architecture)
            except AnswerFileError as e:
                raise ImageError(f"{path} of the image is not usable: {e}; IGNORE_UNATTEND=yes replaces it") from None
            if not found.is_spent:
                return found, path
    return answer_file.default(facts.architecture, facts.version, wanted.timezone), None


def _folders(files: Files, folder: RootPath) -> Sequence[Action]:
    return [MakeFolder(path=folder)] if folder.name and files.entry(folder) is None else []
