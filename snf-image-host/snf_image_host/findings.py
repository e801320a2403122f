"""What `snf-image doctor` found: fine, to be looked at, or to be mended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`remedy` says what to do; it is empty when there is nothing to do."""

    check: str
    state: State
    text: str
    remedy: str = ""


def ok(check: str, text: str) -> Finding:
    return Finding(check=check, state="ok", text=text)


def warn(check: str, text: str, remedy: str) -> Finding:
    return Finding(check=check, state="warn", text=text, remedy=remedy)


def fail(check: str, text: str, remedy: str) -> Finding:
    return Finding(check=check, state="fail", text=text, remedy=remedy)
