"""The progress monitor: hears snf-image's messages, and can neither hold up a deployment nor fail it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.real.snf_image_host.node import Fake

HELPER_FIELDS = {"task-start": "task", "task-end": "task", "warning": "messages", "error": "messages"}


def program(node: Fake, text: str) -> Path:
    path = node.folder / "monitor"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    node.configure(progress_monitor=str(path))
    return path


def heard(path: Path, *, last: str, timeout_s: float = 10) -> list[dict[str, object]]:
    """The messages in a file, when one of the type `last` stands there; each as snf-image's documentation has it."""
    deadline = time.monotonic() + timeout_s
    while f'"{last}"' not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < deadline, f"no {last} was told"
        time.sleep(0.05)
    messages: list[dict[str, object]] = [json.loads(line) for line in path.read_text().splitlines()]
    for message in messages:
        assert isinstance(message["timestamp"], float)
        fields = set(message) - {"type", "timestamp"}
        if message["type"] == "image-helper":
            assert fields == {"subtype", HELPER_FIELDS[str(message["subtype"])]}
        elif message["type"] == "image-copy-progress":
            assert fields == {"position", "total", "progress"} and isinstance(message["progress"], float)
        else:
            assert message["type"] in ("image-info", "image-error") and fields == {"messages"}
    return messages


def test_a_program_gets_the_instance_and_the_messages_in_order(node: Fake) -> None:
    node.image()
    told = node.folder / "told"
    program(node, f'echo "$1" > {node.folder}/name; cat > {told}')
    done = node.create(node.disk())
    assert done.returncode == 0, done.output
    messages = heard(told, last="task-end")
    assert (node.folder / "name").read_text() == "web1\n"
    progress = [m["progress"] for m in messages if m["type"] == "image-copy-progress"]
    assert progress[0] == 0.0 and progress[-1] == 100.0
    tasks = [(m["subtype"], m["task"]) for m in messages if m["type"] == "image-helper"]
    assert ("task-start", "FixPartitionTable") in tasks
    assert tasks.index(("task-end", "AssignHostname")) == tasks.index(("task-start", "AssignHostname")) + 1


def test_a_failed_deployment_tells_its_sentence(node: Fake) -> None:
    told = node.folder / "told"
    told.touch()
    node.configure(progress_monitor=str(told))
    done = node.create(node.disk(), img_id="absent.raw")
    assert done.returncode == 2
    assert [m["messages"] for m in heard(told, last="image-error")] == [[done.sentence.removeprefix("snf-image: ")]]


def test_a_fifo_that_is_read_hears_and_one_that_is_not_is_a_line_in_the_log(node: Fake) -> None:
    node.image()
    fifo = node.folder / "fifo"
    os.mkfifo(fifo)
    node.configure(progress_monitor=str(fifo))
    done = node.create(node.disk())
    assert done.returncode == 0 and "no progress monitor" in done.output, done.output
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert node.create(node.disk()).returncode == 0
        assert b'"image-copy-progress"' in os.read(reader, 1 << 16)
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    "text",
    ["exit 1", "exec sleep 20", "kill -KILL $$", "exec cat > /dev/full", "exec yes >&2", "exec 0<&-; exec sleep 20"],
    ids=["ends", "reads-nothing", "is-killed", "disk-full", "talks", "closes-stdin"],
)
def test_a_monitor_that_misbehaves_changes_nothing(node: Fake, text: str) -> None:
    node.image()
    program(node, f"echo $$ > {node.folder}/pid; {text}")
    begun = time.monotonic()
    done = node.create(node.disk())
    spent = time.monotonic() - begun
    assert done.returncode == 0, done.output
    assert spent < 8
    with open(node.folder / "pid") as file:
        pid = int(file.read())
    if Path(f"/proc/{pid}").exists():
        os.kill(pid, 9)


@pytest.mark.parametrize("path", ["/nonexistent", "/dev/null", "/tmp"])
def test_a_monitor_that_is_none_is_a_line_in_the_log(node: Fake, path: str) -> None:
    node.image()
    node.configure(progress_monitor=path)
    done = node.create(node.disk())
    assert done.returncode == 0 and "no progress monitor" in done.output, done.output


def test_a_reader_that_is_slow_loses_messages_and_not_the_deployment(node: Fake) -> None:
    """A pipe that is full: what does not fit is left out, what is there is whole lines."""
    node.image()
    fifo = node.folder / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    filler = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            while True:
                os.write(filler, b"x" * 4096)
        node.configure(progress_monitor=str(fifo))
        assert node.create(node.disk()).returncode == 0
    finally:
        os.close(filler)
        os.close(reader)
