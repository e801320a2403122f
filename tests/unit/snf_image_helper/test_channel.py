"""What the helper says stays within what the host takes, whatever an image makes it say."""

from __future__ import annotations

from pathlib import Path

from snf_image_helper.channel import Channel
from snf_image_host.channel import TOTAL_LIMIT, Conversation

from synnefo_light.manifest import Finished, Hello, TaskDone, TaskStarted, Warned


def test_an_image_that_provokes_long_warnings_does_not_fail_a_good_deployment(tmp_path: Path) -> None:
    line = tmp_path / "line"
    line.touch()
    channel, nonce = Channel(str(line)), "0" * 32
    channel.send(Hello(helper_version="1", mode="run"))
    channel.send(TaskStarted(task="convert"))
    for percent in range(1000):
        channel.progress("convert", percent << 40, 1000 << 40)
    for _ in range(100):
        channel.warn("convert", "\x01" * 5000)
    channel.send(TaskDone(task="convert"))
    channel.send(Finished(nonce=nonce))
    conversation = Conversation(version="1", nonce=nonce, tasks=("convert",))
    heard = list(conversation.feed(line.read_bytes()))
    conversation.conclude()
    assert line.stat().st_size < TOTAL_LIMIT
    assert sum(isinstance(message, Warned) for message in heard) == 20
