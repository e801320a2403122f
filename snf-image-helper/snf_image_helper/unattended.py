"""How a task says something in the answer file that the task unattend left in the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from snf_image_helper import answer_file
from snf_image_helper.actions import Action, WriteFile
from snf_image_helper.answer_file import AnswerFile
from snf_image_helper.image import Image, ImageError
from snf_image_helper.windows import target


def current(image: Image) -> AnswerFile:
    """Raises ImageError when there is none, which is when unattend was left out."""
    facts = image.windows()
    raw = image.files.read(target(facts))
    if raw is None:
        raise ImageError(f"{target(facts)} is missing, the answer file that says it to Windows; keep InstallUnattend")
    return answer_file.parse(raw, facts.architecture)


def rewritten(image: Image, change: Callable[[AnswerFile], None]) -> Sequence[Action]:
    """The answer file with a change; no action where nothing changes."""
    answers = current(image)
    before = answers.render()
    change(answers)
    after = answers.render()
    return [WriteFile(path=target(image.windows()), content=after)] if after != before else []
