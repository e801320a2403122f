"""The message channel: a raw serial line to the host, one JSON object a line, numbered, few enough for its limits."""

from __future__ import annotations

import os
import termios
import tty

from synnefo_light.manifest import Message, Progressed, Warned, encode_message

LINE = "/dev/ttyS1"
WARNINGS_LIMIT = 20
WARNING_LENGTH = 300  # characters: 20 of six bytes each must leave room in the host's 64 KiB


class Channel:
    def __init__(self, line: str = LINE) -> None:
        self._fd = os.open(line, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if os.isatty(self._fd):
            tty.setraw(self._fd)
        self._sent = 0
        self._warnings = 0
        self._percent: tuple[str, int] | None = None

    def send(self, message: Message) -> None:
        """Returns when the host has the message."""
        self._sent += 1
        line = encode_message(message, seq=self._sent)
        while line:
            line = line[os.write(self._fd, line) :]
        if os.isatty(self._fd):
            termios.tcdrain(self._fd)

    def progress(self, task: str, done: int, total: int) -> None:
        """Sends each whole percentage once, so at most 100 messages a task."""
        percent = min(done * 100 // total, 100) if total else 0
        if percent and (self._percent is None or self._percent[0] != task or self._percent[1] < percent):
            self._percent = (task, percent)
            self.send(Progressed(task=task, done=min(done, total), total=total))

    def warn(self, task: str | None, text: str) -> None:
        """At most 20 of them: an image must not make a good deployment fail by provoking more than the host takes."""
        self._warnings += 1
        if self._warnings < WARNINGS_LIMIT:
            self.send(Warned(task=task, text=text[:WARNING_LENGTH]))
        elif self._warnings == WARNINGS_LIMIT:
            self.send(Warned(task=task, text="there are more warnings; the console log has them"))
