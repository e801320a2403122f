"""What tests pass where a program would be run (synnefo_light.run.Runner)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from synnefo_light.errors import ToolError
from synnefo_light.run import Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a program ends, and what it prints."""

    returncode: int = 0
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    argv: tuple[str, ...]
    stdin: bytes | None
    timeout_s: float


class FakeRunner:
    """Notes each call, and answers what `answer` makes of its words: always the same, or by a function of them.

    An answer whose status the caller did not expect fails the test; a ToolError is raised.
    """

    def __init__(self, answer: Answer | Callable[[tuple[str, ...]], Answer | ToolError] = Answer()) -> None:
        self.calls: list[Call] = []
        self._answer = answer

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: bytes | None = None,
        ok: Collection[int] = (0,),
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Completed:
        words = tuple(map(str, argv))
        self.calls.append(Call(argv=words, stdin=stdin, timeout_s=timeout_s))
        answer = self._answer if isinstance(self._answer, Answer) else self._answer(words)
        if isinstance(answer, ToolError):
            raise answer
        assert answer.returncode in ok
        return Completed(argv=words, returncode=answer.returncode, stdout=answer.stdout, stderr=answer.stderr)
