"""run() against real programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from synnefo_light.errors import ToolError, ToolLate, UserError
from synnefo_light.run import read_from, run, run_bound, run_watched


def test_output_status_and_stdin() -> None:
    done = run(["sh", "-c", "cat; echo e >&2; exit 3"], stdin=b"in", ok=(0, 3), timeout_s=10)
    assert (done.stdout, done.stderr, done.returncode) == (b"in", b"e\n", 3)


def test_nothing_of_our_environment_reaches_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAK", "1")
    names = {line.split("=")[0] for line in run(["env"], timeout_s=10, env={"GIVEN": "1"}).text.splitlines()}
    assert names == {"PATH", "HOME", "LC_ALL", "GIVEN"}


def test_stdin_is_empty_unless_given() -> None:
    assert run(["cat"], timeout_s=10).stdout == b""


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["false"], "false exited with 1"),
        (["sh", "-c", "kill -SEGV $$"], "was killed by SIGSEGV"),
        (["no-such-program"], "was not found"),
        (["sh", "-c", "echo first >&2; echo why >&2; exit 2"], "exited with 2: why"),
    ],
)
def test_a_bad_end_is_told_in_words(argv: list[str], sentence: str) -> None:
    with pytest.raises(ToolError, match=sentence):
        run(argv, timeout_s=10)


def test_a_program_out_of_time_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(ToolError, match="did not end within"):
        run(["sh", "-c", f"sleep 100 & echo $! > {note}; wait"], timeout_s=0.5)
    pid = int(note.read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _runs(pid):
        time.sleep(0.01)
    assert not _runs(pid)


@pytest.mark.parametrize(("how", "dies"), [("run_bound", True), ("run", False)])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_bound_program_dies_with_us_and_any_other_does_not(
    tmp_path: Path, how: str, dies: bool, number: signal.Signals
) -> None:
    """The second is the control: what is waited for does not happen by itself."""
    note = tmp_path / "pid"
    script = f"echo $$ > {note}.new; mv {note}.new {note}; exec sleep 100"
    code = f"from synnefo_light.run import {how}; {how}(['sh', '-c', {script!r}], timeout_s=100)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=env) as we:
        assert _until(note.exists)
        pid = int(note.read_text())
        we.send_signal(number)
        assert we.wait(10) == -number
    try:
        assert _until(lambda: not _runs(pid), limit_s=5 if dies else 0.5) is dies
    finally:
        if not dies:
            os.kill(pid, signal.SIGKILL)


def test_a_bound_program_ends_as_any_other() -> None:
    done = run_bound(["sh", "-c", "cat; echo e >&2; exit 3"], stdin=b"in", ok=(3,), timeout_s=10)
    assert (done.argv[0], done.stdout, done.stderr, done.returncode) == ("sh", b"in", b"e\n", 3)
    for argv, sentence in ((["no-such-program"], "was not found"), (["sh", "-c", "echo why >&2; exit 2"], "2: why")):
        with pytest.raises(ToolError, match=sentence) as caught:
            run_bound(argv, timeout_s=10)
        assert caught.value.argv == tuple(argv)


def test_a_bound_program_ends_when_who_minds_it_says_so() -> None:
    calls: list[int] = []

    def mind() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise UserError("enough")

    with pytest.raises(UserError, match="enough"):
        run_bound(["sleep", "100"], timeout_s=50, mind=mind)
    assert run_bound(["sh", "-c", "sleep 0.7; exit 3"], ok=(3,), timeout_s=50, mind=lambda: None).returncode == 3
    with pytest.raises(ToolLate):
        run_bound(["sleep", "100"], timeout_s=0.7, mind=lambda: None)


def _until(true: Callable[[], bool], *, limit_s: float = 10) -> bool:
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_grandchild_holding_the_output_does_not_hang_us() -> None:
    started = time.monotonic()
    pid = int(run(["sh", "-c", "sleep 100 & echo $!"], timeout_s=30).text)
    os.kill(pid, signal.SIGKILL)
    assert time.monotonic() - started < 25


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before the file was opened, or after
        return False


def test_output_is_handed_over_while_the_program_runs() -> None:
    seen: list[tuple[bytes, float]] = []
    started = time.monotonic()
    script = "printf first; sleep 0.5; printf second; echo e >&2"
    run_watched(["sh", "-c", script], on_output=lambda o: seen.append((o, time.monotonic() - started)), timeout_s=10)
    assert [text for text, _ in seen] == [b"first", b"second"]
    assert seen[1][1] - seen[0][1] > 0.3


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo why >&2; exit 2", "exited with 2: why"),
        ("exec >&-; exec sleep 60", "did not end within 1 s and was killed"),
        ("while :; do sleep 0.1; done", "did not end within 1 s and was killed"),
        ("kill -SEGV $$", "was killed by SIGSEGV"),
    ],
)
def test_a_watched_program_ends_badly_in_words(script: str, sentence: str) -> None:
    started = time.monotonic()
    with pytest.raises(ToolError) as caught:
        run_watched(["sh", "-c", script], on_output=lambda output: None, timeout_s=1)
    assert sentence in str(caught.value)
    assert time.monotonic() - started < 5


def test_what_a_program_says_is_read_as_it_comes_and_its_end_is_told() -> None:
    buffer = memoryview(bytearray(4))
    with read_from(["sh", "-c", "echo 0 5; printf abcde; echo no >&2; exit 3"], timeout_s=10) as reading:
        assert reading.line(limit=64) == b"0 5\n"
        assert (reading.fill(buffer), bytes(buffer)) == (4, b"abcd")
        assert (reading.fill(buffer), bytes(buffer[:1])) == (1, b"e")
        assert reading.line(limit=64) == b""
        done = reading.finish()
    assert (done.returncode, done.stderr) == (3, b"no\n")


def test_a_program_that_says_nothing_is_dead_after_its_time_and_one_that_is_left_at_once() -> None:
    with read_from(["sh", "-c", "sleep 60"], timeout_s=0.5) as reading:
        assert reading.line(limit=64) == b""
        with pytest.raises(ToolError, match=r"did not end within 0\.5 s"):
            reading.finish()
    with read_from(["sh", "-c", "echo $$; sleep 60"], timeout_s=60) as reading:
        pid = int(reading.line(limit=64))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
