"""Answer files of Windows Setup (unattend.xml): read strictly, changed in place, written back.

The file is of the image or of whoever deploys it, so it is bounded, and a document type, and with it every entity, is
refused. Settings that Windows marked as done (wasPassProcessed) belong to an installation of the past: they are left
out, so that nothing of it happens again.

Source: Microsoft, Unattended Windows Setup Reference. Elements of one parent may stand in any order, but for those of
network cards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from snf_image_helper.windows import Architecture
from synnefo_light.errors import PeerError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

Pass = Literal["specialize", "oobeSystem"]

NAMESPACE = "urn:schemas-microsoft-com:unattend"
WCM = "http://schemas.microsoft.com/WMIConfig/2002/State"
SIZE_LIMIT = 1 << 20
DEPTH_LIMIT = 32
ELEMENTS_LIMIT = 20_000
SHELL = "Microsoft-Windows-Shell-Setup"
DEPLOYMENT = "Microsoft-Windows-Deployment"
INTERNATIONAL = "Microsoft-Windows-International-Core"
#: What is the same in every component of Windows itself.
_COMPONENT = {"publicKeyToken": "31bf3856ad364e35", "language": "neutral", "versionScope": "nonSxS"}
# Not compiled here: that takes a tenth of a second where there is no KVM, and most images are not of Windows.
_UNPRINTABLE = "[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


class AnswerFileError(PeerError):
    """An answer file that is not one; the message says what is wrong."""


class AnswerFile:
    """An answer file for one architecture: components for others stay as they are."""

    def __init__(self, root: Element, architecture: Architecture) -> None:
        self.root = root
        self._architecture = architecture

    @property
    def is_spent(self) -> bool:
        """Whether it says nothing about the two passes that follow a sysprep."""
        return not any(s.get("pass") in ("specialize", "oobeSystem") for s in self.root)

    def component(self, phase: Pass, name: str) -> Element:
        """The component of a pass, made if it is not there."""
        settings = next((s for s in self.root.iter(_tag("settings")) if s.get("pass") == phase), None)
        if settings is None:
            settings = _append(self.root, "settings", {"pass": phase})
        for found in settings.iter(_tag("component")):
            if found.get("name") == name and found.get("processorArchitecture", "").lower() == self._architecture:
                return found
        attributes = {"name": name, "processorArchitecture": self._architecture, **_COMPONENT}
        return _append(settings, "component", attributes)

    def set(self, phase: Pass, component: str, path: str, text: str) -> None:
        """Give the element at `path` ("UserAccounts/AdministratorPassword/Value") its text, and make it if need be."""
        put(self.component(phase, component), path, text)

    def get(self, phase: Pass, component: str, path: str) -> str | None:
        return text_of(self.component(phase, component), path)

    def run_synchronously(self, command: str, description: str) -> None:
        """Have a command run, as SYSTEM, in the specialize pass, behind all others. Once, however often it is asked."""
        commands = child(self.component("specialize", DEPLOYMENT), "RunSynchronous")
        listed = commands.findall(_tag("RunSynchronousCommand"))
        if any(text_of(c, "Path") == command for c in listed):
            return
        orders = [int(t) for c in listed if (t := text_of(c, "Order") or "").isascii() and t.isdigit() and len(t) < 5]
        added = add(commands, "RunSynchronousCommand")
        put(added, "Order", str(max(orders, default=0) + 1))
        put(added, "Path", command)
        put(added, "Description", description)

    def render(self) -> bytes:
        """The same answer file always gives the same bytes."""
        from xml.etree import ElementTree

        ElementTree.register_namespace("", NAMESPACE)
        ElementTree.register_namespace("wcm", WCM)
        ElementTree.indent(self.root)
        text = ElementTree.tostring(self.root, encoding="unicode")
        return ('<?xml version="1.0" encoding="utf-8"?>\n' + text + "\n").encode("utf-8")


def parse(raw: bytes, architecture: Architecture) -> AnswerFile:
    """An answer file out of bytes from outside. Raises AnswerFileError."""
    if len(raw) > SIZE_LIMIT:
        raise AnswerFileError(f"the answer file has {len(raw)} bytes, at most {SIZE_LIMIT} are taken")
    _look_through(raw)
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(raw)  # noqa: S314, _look_through has refused entities
    except ElementTree.ParseError as e:  # namespaces, which _look_through does not know
        raise AnswerFileError(f"the answer file is not XML: {e}") from None
    if root.tag != _tag("unattend"):
        raise AnswerFileError(f"the answer file's outermost element is {root.tag[:80]}, not unattend of {NAMESPACE}")
    for settings in [s for s in root if s.get("wasPassProcessed", "").lower() == "true"]:
        root.remove(settings)
    return AnswerFile(root, architecture)


def default(architecture: Architecture, version: tuple[int, int], timezone: str) -> AnswerFile:
    """Ours: no question at the first boot, as far as that version of Windows knows how to leave them out.

    An element that a version does not know makes its Setup fail, so newer ones are named only from NT 6.2 (Windows 8).
    """
    from xml.etree.ElementTree import Element

    made = AnswerFile(Element(_tag("unattend")), architecture)
    for name in ("InputLocale", "SystemLocale", "UILanguage", "UserLocale"):
        made.set("oobeSystem", INTERNATIONAL, name, "en-US")
    made.set("specialize", SHELL, "TimeZone", timezone)
    answers = {"HideEULAPage": "true", "NetworkLocation": "Work", "ProtectYourPC": "3"}
    if version >= (6, 2):
        del answers["NetworkLocation"]
        hidden = ("HideLocalAccountScreen", "HideOEMRegistrationScreen", "HideOnlineAccountScreens")
        answers |= dict.fromkeys((*hidden, "HideWirelessSetupInOOBE"), "true")
    for name, text in answers.items():
        made.set("oobeSystem", SHELL, f"OOBE/{name}", text)
    return made


def child(parent: Element, name: str) -> Element:
    """The first child of that name, made if it is not there."""
    found = parent.find(_tag(name))
    return found if found is not None else _append(parent, name, {})


def add(parent: Element, name: str, *, key: str | None = None) -> Element:
    """One more item of a list, marked as Windows wants list items marked."""
    attributes = {f"{{{WCM}}}action": "add"} | ({f"{{{WCM}}}keyValue": key} if key is not None else {})
    return _append(parent, name, attributes)


def put(parent: Element, path: str, text: str) -> None:
    """Raises ValueError for characters that XML cannot hold."""
    if re.search(_UNPRINTABLE, text):
        raise ValueError(f"{path} of the answer file cannot hold control characters")
    for name in path.split("/"):
        parent = child(parent, name)
    parent.text = text


def text_of(parent: Element, path: str) -> str | None:
    found = parent.find("/".join(_tag(name) for name in path.split("/")))
    return (found.text or "").strip() if found is not None else None


def items(parent: Element, path: str) -> Sequence[Element]:
    """All elements at `path`."""
    return parent.findall("/".join(_tag(name) for name in path.split("/")))


def _append(parent: Element, name: str, attributes: Mapping[str, str]) -> Element:
    made = parent.makeelement(_tag(name), dict(attributes))
    parent.append(made)
    return made


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _look_through(raw: bytes) -> None:
    """Once through the file without keeping any of it. Raises AnswerFileError for what is not taken."""
    from xml.parsers import expat  # not before it is needed: most images are not Windows

    depth = count = 0

    def start(name: str, attributes: Mapping[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > DEPTH_LIMIT or count > ELEMENTS_LIMIT:
            raise AnswerFileError(
                f"the answer file has more than {ELEMENTS_LIMIT} elements, or is nested deeper than {DEPTH_LIMIT}"
            )

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1

    def doctype(*_: object) -> None:
        raise AnswerFileError("the answer file has a document type (DOCTYPE), which none needs and none may have")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(raw, True)
    except (expat.ExpatError, LookupError, ValueError) as e:
        raise AnswerFileError(f"the answer file is not XML: {e}") from None
