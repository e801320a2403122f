"""The report of an instance's last deployment, for an administrator: it stays in the log folder, also over a reboot.

    /var/log/snf-image/NAME.report.json   written when the deployment begins, and again, whole, when it ends

So one that was killed left a report that it is running, though nobody holds its lock. It is bounded, and holds no
secret: of the OS parameters only those of a short list are shown, of others their length.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from snf_image_host import journal
from snf_image_host.exclusions import TASK_PREFIX
from snf_image_host.journal import Entry, Failed, Finished
from snf_image_host.properties import PROPERTIES
from synnefo_light import __version__
from synnefo_light.errors import EnvironmentFault, UserError
from synnefo_light.files import read_bounded, write_atomic
from synnefo_light.log import escape
from synnefo_light.records import RecordError, dump_json, parse_json

LIMIT: Final = 512 << 10
STEPS: Final = 100
GIVEN: Final = 30  # parameters
CONSOLE: Final = 40  # lines
TEXT: Final = 400  # characters of a warning, a parameter, a line of the console
NOTE: Final = 120  # and of why a task was skipped

#: OS parameters whose values may be seen; addresses lose what may be a key.
SHOWN: Final = frozenset(
    {"img_format", "img_checksum", "img_source_format", "img_compression", "dns_nameservers", "dns_search"}
)
ADDRESSES: Final = frozenset({"img_id", "config_url", "os_answer_file", "img_signature"})
PROPERTY_SETS: Final = frozenset({"img_properties", "inst_properties"})
#: Properties whose values may be seen: those that we know, but for a script.
SHOWN_PROPERTIES: Final = frozenset(p.name for p in PROPERTIES) - {"CUSTOM_TASK"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The copy, the helper's start, or a task."""

    name: str
    state: Literal["running", "done", "skipped"]
    ms: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Times in ms since 1970, or ms; sizes in bytes."""

    version: Literal[1] = 1
    instance: str
    program: str  # version of snf-image
    helper: str | None = None  # and of the helper VM
    began_ms: int
    ended_ms: int | None = None
    outcome: Literal["running", "deployed", "failed"] = "running"
    image: str
    image_size: int | None = None
    disk_size: int | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    accel: str | None = None
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    step: str | None = None  # where it failed
    sentence: str | None = None
    console: tuple[str, ...] = ()
    figures: Finished | None = None


class Account:
    """Listens to a deployment, and writes its report."""

    def __init__(self, path: Path, instance: str, *, image: str, parameters: Mapping[str, str]) -> None:
        self._path = path
        self.report = Report(
            instance=instance,
            program=__version__,
            began_ms=time.time_ns() // 1_000_000,
            image=_without_keys(image),
            parameters=shown_parameters(parameters),
        )

    def note(self, *, image: str, helper: str) -> None:
        """What is known only after the beginning."""
        self.report = replace(self.report, image=_without_keys(image), helper=helper)

    def __call__(self, entry: Entry) -> None:
        """Raises nothing: only `write` touches the disk."""
        self.report = account(self.report, entry)

    def write(self, console: tuple[str, ...] = ()) -> None:
        """The report as it stands, with the end of the console. Raises OSError, EnvironmentFault."""
        lines = tuple(escape(line, limit=TEXT) for line in console[-CONSOLE:])
        content = dump_json(replace(self.report, console=lines)) + b"\n"
        owner = (0, self._path.parent.stat().st_gid) if os.geteuid() == 0 else None
        write_atomic(self._path, content, mode=0o640, owner=owner)


def account(report: Report, entry: Entry) -> Report:
    """The report with what the record says. Pure."""
    record, steps = entry.record, report.steps
    if isinstance(record, journal.Started):
        return replace(report, image_size=record.size, disk_size=record.disk)
    if isinstance(record, journal.CopyProgressed):
        return report if steps else replace(report, steps=(Step(name="copy", state="running"),))
    if isinstance(record, journal.CopyDone):
        return _ended(report, Step(name="copy", state="done", ms=record.copy_ms))
    if isinstance(record, journal.Cloned):
        return _ended(report, Step(name="clone", state="done", ms=0))
    if isinstance(record, journal.HelperStarted):
        return replace(report, accel=record.accel)
    if isinstance(record, journal.TaskStarted):
        return _ended(report, Step(name=record.task, state="running"))
    if isinstance(record, journal.TaskDone):
        return _ended(report, Step(name=record.task, state="done", ms=record.task_ms))
    if isinstance(record, journal.TaskSkipped):
        return _ended(report, Step(name=record.task, state="skipped", note=escape(record.reason, limit=NOTE)))
    if isinstance(record, journal.Warned):
        text = escape(f"{record.task}: {record.text}" if record.task else record.text, limit=TEXT)
        return replace(report, warnings=(*report.warnings, text))
    if isinstance(record, Failed):
        sentence = escape(record.reason, limit=4000)
        return replace(report, outcome="failed", ended_ms=entry.at_ms, step=record.step, sentence=sentence)
    if isinstance(record, Finished):
        return replace(report, outcome="deployed", ended_ms=entry.at_ms, figures=record)
    return report


def _ended(report: Report, step: Step) -> Report:
    """With `step` in place of the running one of its name, or after the others."""
    others = tuple(s for s in report.steps if s.name != step.name)
    return replace(report, steps=(*others, step)[:STEPS])


def shown_parameters(given: Mapping[str, str]) -> dict[str, str]:
    """OS parameters, fit to be kept and seen: of what may be a secret only the length. Pure."""
    return {escape(name, limit=80): _shown(name, value) for name, value in sorted(given.items())[:GIVEN]}


def _shown(name: str, value: str) -> str:
    hidden = f"({len(value)} characters)"
    if name in SHOWN:
        return escape(value, limit=TEXT)
    if name in ADDRESSES:
        return _without_keys(value)
    if name not in PROPERTY_SETS:
        return hidden
    try:
        found = json.loads(value)
        assert isinstance(found, dict)
    except (ValueError, RecursionError, AssertionError):
        return hidden
    seen = [f"{k}={v if _is_shown(k) else '(hidden)'}" for k, v in sorted(found.items())]
    return escape(" ".join(seen), limit=TEXT)


def _is_shown(given: str) -> bool:
    return given.upper() in SHOWN_PROPERTIES or given.upper().startswith(TASK_PREFIX)


def _without_keys(address: str) -> str:
    """A query and what stands before an @ may be a key; a name or a path of the image folder is none."""
    scheme, colon, _ = address.partition(":")
    if not colon or scheme.lower() in ("local", "file"):
        return escape(address, limit=TEXT)
    try:
        parts = urlsplit(address)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return f"({len(address)} characters)"
    kept = parts._replace(netloc=host, query="(hidden)" if parts.query else "", fragment="")
    return escape(kept.geturl(), limit=TEXT)


def path_of(log_dir: Path, instance: str) -> Path:
    return log_dir / f"{instance}.report.json"


def read_report(log_dir: Path, instance: str) -> Report:
    """The last report of `instance`. Raises UserError when there is none, EnvironmentFault when it is unreadable."""
    shown = escape(instance, limit=80)
    try:
        if "/" in instance or instance.startswith(".") or len(os.fsencode(instance)) > 200:
            raise FileNotFoundError
        return parse_json(read_bounded(path_of(log_dir, instance), limit=LIMIT), Report, limit=LIMIT)
    except FileNotFoundError:
        raise UserError(f"{log_dir} holds no report of {shown!r}; was it deployed on this node?") from None
    except PermissionError:
        raise UserError("a report is for root and the group of the log folder; run this as one of them") from None
    except (OSError, RecordError) as e:
        raise EnvironmentFault(f"the report of {shown!r} cannot be read: {e}") from None
