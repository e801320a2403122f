"""What a person sees while a lab works: one line per step, with the time it took.

On a terminal the line of the running step moves: a bar against the time that the same step took last, or against a
known fraction, and the seconds so far. Elsewhere there are plain lines: start, a sign of life every 15 s, end.
What the step's programs print goes to its log file; when the step fails, the end of that file is shown.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from snf_lab.ties import contained
from synnefo_light import files
from synnefo_light.errors import ToolError
from synnefo_light.log import escape
from synnefo_light.run import Runner, run

HEARTBEAT_S = 15.0
TICK_S = 0.2
TAIL_LINES = 40
TAIL_BYTES = 256 << 10
BAR_WIDTH = 20


def render_bar(fraction: float, width: int = BAR_WIDTH) -> str:
    full = int(max(0.0, min(1.0, fraction)) * width)
    return "[" + "#" * full + "." * (width - full) + "]"


def render_seconds(seconds: float) -> str:
    """ "3.2 s" below 100 s, "4 min 05 s" above."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def render_table(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell, two blanks apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last lines of a file, made fit for a terminal; [] when there is none.

    pytest's list of durations is left out: it stands between the tracebacks and the names of the tests that failed.
    """
    try:
        with open(log, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [escape(line) for line in without_durations(text.splitlines())[-lines:]]


def without_durations(lines: Sequence[str]) -> list[str]:
    """A log of pytest's without its section of durations, which ends where the next one begins."""
    kept, inside = [], False
    for line in lines:
        if re.fullmatch(r"=+ .* =+", line):
            inside = re.fullmatch(r"=+ slowest (\d+ )?durations =+", line) is not None
        if not inside:
            kept.append(line)
    return kept


class Step:
    """A running step: `note` says what it is at, `fraction` how far it is (0 to 1, when that is known)."""

    def __init__(self, title: str, expected_s: float | None) -> None:
        self.title = title
        self.note = ""
        self.fraction: float | None = None
        self.expected_s = expected_s

    def reached(self, elapsed_s: float) -> float | None:
        """How far the step is, told or guessed from last time; a guess never says that it is finished."""
        if self.fraction is not None:
            return self.fraction
        if self.expected_s and self.expected_s > 0:
            return min(0.99, elapsed_s / self.expected_s)
        return None

    def line(self, elapsed_s: float) -> str:
        reached = self.reached(elapsed_s)
        parts = [self.title, render_bar(reached) if reached is not None else "", self.note, render_seconds(elapsed_s)]
        return "  ".join(part for part in parts if part)


class Progress:
    """Prints steps. `durations` is a file in which the time of each step is kept for the next run's bars."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        durations: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._tty = self._stream.isatty()
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._lock = threading.RLock()
        self._durations_file = durations
        self._depth = 0
        self._shown: BaseException | None = None
        self.taken: dict[str, float] = {}

    def say(self, text: str = "") -> None:
        """A line of its own, above the running step."""
        with self._lock:
            self._clear()
            print(text, file=self._stream, flush=True)

    @contextlib.contextmanager
    def step(self, title: str, *, log: Path | None = None) -> Iterator[Step]:
        """Show a step while the block runs; its time is in `taken[title]` afterwards.

        Steps may be nested (a step's sub-steps are indented). An exception passes through; the innermost step that it
        leaves says so and shows the end of its log.
        """
        step = Step(title, self._expected().get(title))
        started = self._clock()
        indent = "  " * self._depth
        self._depth += 1
        ended = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(step, indent, started, ended), daemon=True)
        if not self._tty:
            self.say(f"{indent}.. {title}")
        ticker.start()
        try:
            yield step
        except BaseException as e:
            self._end(ended, ticker)
            self.say(f"{indent}!! {title}  {render_seconds(self._clock() - started)}{self._why(e)}")
            if log is not None and e is not self._shown and isinstance(e, Exception) and (lines := tail(log)):
                self.say(f"{indent}   the end of {log}:")
                for line in lines:
                    self.say(f"{indent}   | {line}")
            self._shown = e
            raise
        else:
            self._end(ended, ticker)
            elapsed_s = self._clock() - started
            self.taken[title] = elapsed_s
            note = f"  {step.note}" if step.note else ""
            self.say(f"{indent}ok {title}{note}  {render_seconds(elapsed_s)}")
            self._remember(title, elapsed_s)
        finally:
            self._depth -= 1

    @staticmethod
    def _why(e: BaseException) -> str:
        return "  interrupted" if isinstance(e, KeyboardInterrupt) else "  failed"

    def _end(self, ended: threading.Event, ticker: threading.Thread) -> None:
        ended.set()
        ticker.join()

    def _tick(self, step: Step, indent: str, started: float, ended: threading.Event) -> None:
        signs = "|/-\\"
        count = 0
        while not ended.wait(TICK_S if self._tty else self._heartbeat_s):
            count += 1
            line = step.line(self._clock() - started)
            if self._tty:
                with self._lock:
                    print(f"\r\x1b[K{indent}{signs[count % 4]}  {line[:110]}", end="", file=self._stream, flush=True)
            else:
                self.say(f"{indent}.. {line}")

    def _clear(self) -> None:
        if self._tty:
            print("\r\x1b[K", end="", file=self._stream)

    def _expected(self) -> dict[str, float]:
        if self._durations_file is None:
            return {}
        try:
            read = json.loads(files.read_bounded(self._durations_file, limit=64 << 10))
            return {str(title): float(seconds) for title, seconds in read.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}  # only a guess for a bar: a broken file is as good as none

    def _remember(self, title: str, elapsed_s: float) -> None:
        if self._durations_file is None:
            return
        known = self._expected() | {title: round(elapsed_s, 2)}
        with contextlib.suppress(OSError):
            files.write_atomic(self._durations_file, json.dumps(dict(list(known.items())[-200:])).encode())


def run_logged(
    argv: Sequence[str | Path],
    *,
    log: Path,
    timeout_s: float,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    contain: bool = False,
    runner: Runner = run,
) -> None:
    """Run a program whose output is long: it goes to the end of `log` while it runs. Raises ToolError as `run` does.

    With `contain` nothing that it starts or mounts outlives it, or us (see `ties`).
    """
    script = 'log=$1; shift; exec "$@" >>"$log" 2>&1'
    try:
        words = contained(argv) if contain else argv
        runner(["sh", "-c", script, "sh", log, *words], timeout_s=timeout_s, env=env, cwd=cwd)
    except ToolError as e:
        raise ToolError([str(word) for word in argv], e.outcome, "\n".join(tail(log))) from e
