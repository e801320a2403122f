"""The one place that runs programs.

A program gets a list of words (never a shell line), an empty stdin unless told otherwise, a short fixed environment,
and always a time limit. What it prints is kept to a limit of bytes, so a chatty program cannot fill our memory.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from synnefo_light.errors import ToolError, ToolLate
from synnefo_light.log import logger

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LIMIT = 16 << 20
#: Before the words of a program that dies when the thread that started it does.
_BOUND = ["setpriv", "--pdeathsig", "KILL", "--"]
_MIND_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    argv: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "replace")


class Runner(Protocol):
    """What `run` promises; tests pass a function of this shape instead."""

    def __call__(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: bytes | None = None,
        ok: Collection[int] = (0,),
        timeout_s: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Completed: ...


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    ok: Collection[int] = (0,),
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Completed:
    """Run a program to its end and return what it printed.

    `env` is added to PATH, HOME and LC_ALL=C.UTF-8; nothing is inherited. A program still running after `timeout_s`
    is killed with its whole session. Raises ToolError when it cannot be started, is killed, runs out of time,
    or exits with a status that is not in `ok`.
    """
    return _run([], argv, stdin, ok, timeout_s, env, cwd)


def run_bound(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    ok: Collection[int] = (0,),
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    mind: Callable[[], None] | None = None,
) -> Completed:
    """As `run`, for what may take hours: the program, though not its children, is killed when we or this thread die.

    `mind` is called twice a second meanwhile; what it raises ends the program and comes out.
    """
    _require_program(argv, path=(env or {}).get("PATH", PATH))
    return _run(_BOUND, argv, stdin, ok, timeout_s, env, cwd, mind)


def _run(
    under: list[str],
    argv: Sequence[str | Path],
    stdin: bytes | None,
    ok: Collection[int],
    timeout_s: float,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    mind: Callable[[], None] | None = None,
) -> Completed:
    """`under`: the words of a program that becomes this one; nobody is told of it."""
    words = [os.fspath(word) for word in argv]
    logger.debug("run %s", shlex.join(words))
    # Files instead of pipes: a grandchild that keeps a pipe open cannot hang us, and the limit is a matter of reading.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        if stdin is not None:
            given.write(stdin)
            given.seek(0)
        process = _start([*under, *words], given if stdin is not None else subprocess.DEVNULL, out, err, env, cwd)
        try:
            returncode = process.wait(timeout_s) if mind is None else _minded(process, timeout_s, mind)
        except subprocess.TimeoutExpired:
            raise ToolLate(words, timeout_s, _tail(err)) from None
        finally:
            if process.poll() is None:
                _kill_session(process)
        if returncode not in ok:
            logger.debug("failed, to repeat: %s", shlex.join(words))
            raise ToolError(words, outcome(returncode), _tail(err))
        return Completed(argv=tuple(words), returncode=returncode, stdout=_whole(out), stderr=_whole(err))


def _minded(process: subprocess.Popen[bytes], timeout_s: float, mind: Callable[[], None]) -> int:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(_MIND_S, max(0.0, deadline - time.monotonic())))
        if time.monotonic() >= deadline:
            raise subprocess.TimeoutExpired(process.args, timeout_s)
        mind()


def run_watched(
    argv: Sequence[str | Path],
    *,
    on_output: Callable[[bytes], None],
    timeout_s: float,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end and hand over what it prints while it prints it; otherwise as `run`, status 0 alone."""
    words = [os.fspath(word) for word in argv]
    logger.debug("run %s", shlex.join(words))
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryFile() as err:
        process = _start(words, subprocess.DEVNULL, subprocess.PIPE, err, env, None)
        assert process.stdout is not None
        try:
            while select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                output = os.read(process.stdout.fileno(), 64 << 10)
                if not output:
                    break
                on_output(output)
            returncode = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise ToolLate(words, timeout_s, _tail(err)) from None
        finally:
            process.stdout.close()
            if process.poll() is None:
                _kill_session(process)
        if returncode != 0:
            raise ToolError(words, outcome(returncode), _tail(err))


class Feeding:
    """A program that is being given its stdin piece by piece; see `feed`."""

    def __init__(self, pipe: int, finish: Callable[[], Completed]) -> None:
        self._pipe = pipe
        self._finish = finish

    def write(self, data: bytes | memoryview) -> None:
        """Give it all of `data`. What a program would get that has ended already is dropped: `finish` tells."""
        rest = memoryview(data)
        with contextlib.suppress(BrokenPipeError):
            while rest:
                rest = rest[os.write(self._pipe, rest) :]

    def finish(self) -> Completed:
        """End its stdin and wait for it, whatever its status. Raises ToolError when it ran out of time."""
        return self._finish()


@contextlib.contextmanager
def feed(argv: Sequence[str | Path], *, timeout_s: float, pass_fds: Sequence[int] = ()) -> Iterator[Feeding]:
    """Start a program that is given its stdin as it comes. It is dead when the context ends, however that ends.

    `timeout_s` counts from the start: a program that stops reading is killed then, so `write` cannot hang for ever.
    """
    words = [os.fspath(word) for word in argv]
    logger.debug("run %s", shlex.join(words))
    with contextlib.ExitStack() as opened:
        out, err = (opened.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        reading, writing = os.pipe()
        pipe = opened.enter_context(os.fdopen(writing, "wb", buffering=0))
        with os.fdopen(reading, "rb", buffering=0) as stdin:
            process = _start(words, stdin, out, err, None, None, pass_fds)
        yield Feeding(writing, opened.enter_context(_limited(words, process, pipe, out, err, timeout_s)))


class Reading:
    """A program whose stdout is read piece by piece; see `read_from`."""

    def __init__(self, pipe: IO[bytes], finish: Callable[[], Completed]) -> None:
        self._pipe = pipe
        self._finish = finish

    def line(self, *, limit: int) -> bytes:
        """Up to a newline, which is with it; without one at the end of the stream or after `limit` bytes."""
        return self._pipe.readline(limit)

    def fill(self, buffer: memoryview) -> int:
        """Bytes read into the buffer: fewer than it has only at the end of the stream."""
        filled = 0
        while filled < len(buffer) and (count := self._pipe.readinto(buffer[filled:])):  # type: ignore[attr-defined]
            filled += count
        return filled

    def finish(self) -> Completed:
        """Wait for it, whatever its status; what it still says on stdout is lost. Raises ToolError when it is late."""
        return self._finish()


@contextlib.contextmanager
def read_from(argv: Sequence[str | Path], *, timeout_s: float) -> Iterator[Reading]:
    """Start a program whose stdout is read as it comes. It is dead when the context ends, however that ends.

    `timeout_s` counts from the start: a program that says nothing is killed then, so reading cannot hang for ever.
    Raises ToolError when it cannot be started.
    """
    words = [os.fspath(word) for word in argv]
    logger.debug("run %s", shlex.join(words))
    with contextlib.ExitStack() as opened:
        err = opened.enter_context(tempfile.TemporaryFile())
        process = _start(words, subprocess.DEVNULL, subprocess.PIPE, err, None, None)
        assert process.stdout is not None
        pipe = opened.enter_context(process.stdout)
        yield Reading(pipe, opened.enter_context(_limited(words, process, pipe, None, err, timeout_s)))


@contextlib.contextmanager
def _limited(
    words: list[str],
    process: subprocess.Popen[bytes],
    pipe: IO[bytes],
    out: IO[bytes] | None,
    err: IO[bytes],
    timeout_s: float,
) -> Iterator[Callable[[], Completed]]:
    """What shuts our end of its pipe and waits for it. It is killed after a time, and is dead when the context ends."""
    timer = threading.Timer(timeout_s, _kill_session, (process,))
    timer.daemon = True
    timer.start()
    late = time.monotonic() + timeout_s

    def finish() -> Completed:
        pipe.close()
        returncode = process.wait()
        if time.monotonic() >= late:
            raise ToolLate(words, timeout_s, _tail(err))
        said = b"" if out is None else _whole(out)
        return Completed(argv=tuple(words), returncode=returncode, stdout=said, stderr=_whole(err))

    try:
        yield finish
    finally:
        timer.cancel()
        _kill_session(process)


class Serving:
    """A program that runs as long as its context; see `serve`."""

    def __init__(self, check: Callable[[], None], end: Callable[[], None]) -> None:
        self._check = check
        self._end = end

    def end(self) -> None:
        """Kill it now. A second call does nothing."""
        self._end()

    def check(self) -> None:
        """Raises ToolError, with what it said, when it has ended."""
        self._check()


@contextlib.contextmanager
def serve(argv: Sequence[str | Path], *, pass_fds: Sequence[int] = (), patience_s: float = 10.0) -> Iterator[Serving]:
    """Start a program that serves us. When the context ends it is asked to end, and is dead after `patience_s` at most.

    It is killed when we or this thread die. Raises ToolError when it is not there.
    """
    _require_program(argv)
    words = [*_BOUND, *(os.fspath(word) for word in argv)]
    logger.debug("run %s", shlex.join(words))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = _start(words, subprocess.DEVNULL, out, err, None, None, pass_fds)

        def check() -> None:
            if process.poll() is not None:
                raise ToolError(words[len(_BOUND) :], outcome(process.returncode), _tail(err))

        try:
            yield Serving(check, lambda: _kill_session(process))
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
            _kill_session(process)


def _require_program(argv: Sequence[str | Path], *, path: str | None = None) -> None:
    """What starts it would say only that itself did not find it. Raises ToolError."""
    if shutil.which(argv[0], path=path or PATH) is None:
        raise ToolError([os.fspath(word) for word in argv], "was not found")


def _start(
    words: list[str],
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int,
    stderr: IO[bytes],
    env: Mapping[str, str] | None,
    cwd: Path | None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    environment = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        return subprocess.Popen(
            words,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as e:
        raise ToolError(words, "was not found" if e.filename == words[0] else f"could not start in {cwd}") from e
    except OSError as e:
        raise ToolError(words, f"could not be started: {e.strerror}") from e


@contextlib.contextmanager
def start_listening(argv: Sequence[str | Path], *, limit_s: float) -> Iterator[int]:
    """Start a program that is told things on its stdin: yields the writing end, which never blocks.

    The program is in a session of its own and nobody's child, its output is thrown away, and it is killed after
    `limit_s`; it outlives this context, at whose end its stdin ends. What it makes of that is not waited for.
    Raises ToolError when it cannot be started.
    """
    words = ["setsid", "--fork", "timeout", "-s", "KILL", f"{limit_s:g}", *(os.fspath(word) for word in argv)]
    logger.debug("run %s", shlex.join(words))
    theirs, ours = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(ours, False)
        try:
            starter = subprocess.Popen(
                words,
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        except OSError as e:
            raise ToolError(words, f"could not be started: {e.strerror}") from e
        finally:
            os.close(theirs)
        starter.wait()  # `setsid` forks and ends
        yield ours
    finally:
        os.close(ours)


def outcome(returncode: int) -> str:
    """How a program ended, in words: "exited with 3", "was killed by SIGSEGV"."""
    if returncode >= 0:
        return f"exited with {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """A second call, and one for a program that has ended, does nothing."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(OUTPUT_LIMIT)


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 4096))
    return file.read(4096).decode("utf-8", "replace")
