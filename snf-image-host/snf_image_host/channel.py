"""What comes back from the helper VM: a conversation by messages, and a console log. Every byte is hostile.

`Conversation` takes bytes and knows what may come next; anything else raises ProtocolError. It decides success: Hello
first and with our version, numbers without a gap, every task that was asked for reported done (or skipped with a
reason), Finished once with the nonce, nothing after it. What a message says is otherwise only shown, escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

from synnefo_light.errors import PeerError, ProtocolError
from synnefo_light.log import escape
from synnefo_light.manifest import (
    LINE_LIMIT,
    Failed,
    Finished,
    Hello,
    Measured,
    Message,
    Progressed,
    TaskDone,
    TaskSkipped,
    TaskStarted,
    Warned,
    parse_message,
)

TOTAL_LIMIT: Final = 64 << 10
LINES_LIMIT: Final = 512
PROGRESS_LIMIT: Final = 100  # a task
CONSOLE_HEAD: Final = 64 << 10
CONSOLE_TAIL: Final = 192 << 10
FLOOD: Final = 16 << 20


class HelperFailed(PeerError):
    """The work in the helper VM did not succeed. `task` is where, if that is known; `changed` is the VM's own word."""

    def __init__(self, sentence: str, *, task: str | None = None, changed: bool = True) -> None:
        super().__init__(sentence)
        self.task = task
        self.changed = changed


class Conversation:
    def __init__(
        self, *, version: str, nonce: str | None, tasks: Sequence[str] = (), skip: frozenset[str] = frozenset()
    ) -> None:
        """A run of `tasks` without `skip`, with `nonce` (of the manifest); or without one a selftest, only a hello."""
        self._version = version
        self._nonce = nonce
        self._tasks = tuple(tasks)
        self._due = frozenset(tasks) - skip
        self._buffer = b""
        self._total = self._lines = 0
        self._hello = False
        self._running: str | None = None
        self._progress = 0
        self._measured = False
        self._ended: set[str] = set()
        self._last: Finished | Failed | None = None

    @property
    def mode(self) -> Literal["run", "selftest"]:
        return "run" if self._nonce is not None else "selftest"

    @property
    def running(self) -> str | None:
        """The task that was begun and has not ended."""
        return self._running

    @property
    def over(self) -> bool:
        """Whether the last message has come."""
        return self._last is not None or (self.mode == "selftest" and self._hello)

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that `data` completes. Raises ProtocolError on the first that is not acceptable."""
        self._total += len(data)
        if self._total > TOTAL_LIMIT:
            raise ProtocolError(f"the helper VM sent more than {TOTAL_LIMIT} bytes of messages")
        self._buffer += data
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            yield self._accept(line)
        if len(self._buffer) > LINE_LIMIT:
            raise ProtocolError(f"the helper VM sent a message of more than {LINE_LIMIT} bytes")

    def conclude(self) -> None:
        """The channel is closed: was it success? Raises HelperFailed or ProtocolError."""
        if isinstance(self._last, Failed):
            where = f"the task {self._last.task}" if self._last.task else "the helper VM"
            reason = f"{where} failed: {escape(self._last.reason)}"
            raise HelperFailed(reason, task=self._last.task, changed=self._last.changed)
        if self._buffer:
            raise ProtocolError("the helper VM ended in the middle of a message")
        if not self.over:
            where = (
                f"in the task {self._running}" if self._running else "between tasks" if self._hello else "at its start"
            )
            raise HelperFailed(f"the helper VM ended {where}, without saying that it had finished", task=self._running)

    def _accept(self, line: bytes) -> Message:
        self._lines += 1
        if self._lines > LINES_LIMIT:
            raise ProtocolError(f"the helper VM sent more than {LINES_LIMIT} messages")
        message = parse_message(line, seq=self._lines)
        task = getattr(message, "task", None)
        if task is not None and task not in self._tasks:
            raise ProtocolError(f"the helper VM spoke of the task {task}, which it does not have")
        if self._last is not None:
            raise ProtocolError("the helper VM went on after its last message")
        if isinstance(message, Hello):
            self._greet(message)
        elif not self._hello:
            raise ProtocolError("the helper VM did not say hello first")
        elif self.mode == "selftest":
            raise ProtocolError("the helper VM said more than hello in its selftest")
        elif isinstance(message, Finished):
            self._finish(message)
        elif isinstance(message, Failed):
            self._last = message
        elif not isinstance(message, Warned):
            self._task(message)
        return message

    def _greet(self, message: Hello) -> None:
        if self._hello:
            raise ProtocolError("the helper VM said hello twice")
        if message.helper_version != self._version:
            shown = escape(message.helper_version, limit=40)
            raise ProtocolError(
                f"the helper VM is version {shown}, this host half is {self._version}; install the same version of both"
            )
        if message.mode != self.mode:
            raise ProtocolError(f"the helper VM started as {message.mode}, not as {self.mode}")
        self._hello = True

    def _task(self, message: TaskStarted | Progressed | Measured | TaskDone | TaskSkipped) -> None:
        task = message.task
        if isinstance(message, Progressed):
            self._progress += 1
            if task != self._running or self._progress > PROGRESS_LIMIT:
                raise ProtocolError(f"the helper VM told the progress of the task {task} out of turn, or too often")
            return
        if isinstance(message, Measured):
            if task != self._running or self._measured:
                raise ProtocolError(f"the helper VM told the image's size in the task {task} out of turn, or again")
            self._measured = True
            return
        if task in self._ended:
            raise ProtocolError(f"the helper VM reported the task {task} again")
        if isinstance(message, TaskStarted):
            if self._running is not None:
                raise ProtocolError(f"the helper VM began the task {task} before {self._running} had ended")
            if task not in self._due:
                raise ProtocolError(f"the helper VM began the task {task}, which was to be left out")
            self._running = task
            self._progress = 0
        elif isinstance(message, TaskDone):
            if self._running != task:
                raise ProtocolError(f"the helper VM ended the task {task}, which was not running")
            self._end(task)
        else:
            if self._running not in (None, task):
                raise ProtocolError(f"the helper VM skipped the task {task} before {self._running} had ended")
            self._end(task)

    def _end(self, task: str) -> None:
        self._running = None
        self._ended.add(task)

    def _finish(self, message: Finished) -> None:
        if message.nonce != self._nonce:
            raise ProtocolError("the helper VM's last message does not carry the nonce of this deployment")
        missing = [task for task in self._tasks if task in self._due - self._ended]
        if missing:
            raise ProtocolError(f"the helper VM finished without the tasks {', '.join(missing)}")
        self._last = message


class ConsoleLog:
    """The first 64 KiB and the last 192 KiB of what a console says."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def feed(self, data: bytes) -> None:
        """Raises ProtocolError over 16 MiB: a machine that talks this much does not work."""
        self.total += len(data)
        room = CONSOLE_HEAD - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * CONSOLE_TAIL:
            del self._tail[:-CONSOLE_TAIL]
        if self.total > FLOOD:
            raise ProtocolError(f"the helper VM flooded its console with more than {FLOOD >> 20} MiB")

    def lines(self) -> list[str]:
        """What was kept, escaped, with a mark where something was thrown away."""
        tail = bytes(self._tail[-CONSOLE_TAIL:])
        lost = self.total - len(self._head) - len(tail)
        if not lost:
            return _escaped(bytes(self._head) + tail)
        return [*_escaped(bytes(self._head)), f"[{lost} bytes were thrown away here]", *_escaped(tail)]


def _escaped(raw: bytes) -> list[str]:
    text = raw.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return [escape(line, limit=1000) for line in text.split("\n") if line]
