"""The files of img_personality: content, owner, group and mode as asked, missing folders on the way made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.distribution import accounts, group_ids, parse_id
from snf_image_helper.folders import plan_folders
from snf_image_helper.image import Image, ImageError, RootPath
from snf_image_helper.injection import content_of
from synnefo_light.manifest import InjectedFile, Manifest
from synnefo_light.tasks import Phase, TaskInfo

#: Last of those that write files: what the admin injects wins over what we made.
INFO = TaskInfo(
    name="personality",
    snf_image="EnforcePersonality",
    groups=frozenset({"mounted"}),
    phase=Phase.MOUNTED,
    summary="Inject files",
    after=frozenset({"cloud_init", "hostname", "machine_id", "network", "password", "ssh_host_keys", "swap"}),
)


def plan(image: Image, manifest: Manifest) -> Sequence[Action]:
    if not manifest.files:
        return []
    users = {name: a.uid for name, a in accounts(image.files).items()}
    groups = group_ids(image.files)
    actions: list[Action] = []
    made: set[RootPath] = set()
    for file in manifest.files:
        path = RootPath(file.path)
        actions += plan_folders(image.files, path.parent, made=made)
        owner = (_number(file.owner, users, "user", file), _number(file.group, groups, "group", file))
        actions.append(WriteFile(path=path, content=content_of(file), mode=file.mode, owner=owner))
    return actions


def _number(name: str, known: Mapping[str, int], what: str, file: InjectedFile) -> int:
    if name in known:
        return known[name]
    if (number := parse_id(name)) is not None:
        return number
    raise ImageError(f"{file.path} is to belong to the {what} {name}, which the image does not have")
