"""The hostile channel: what makes success, and that nothing else does."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from snf_image_host.channel import (
    CONSOLE_HEAD,
    CONSOLE_TAIL,
    FLOOD,
    LINES_LIMIT,
    PROGRESS_LIMIT,
    TOTAL_LIMIT,
    ConsoleLog,
    Conversation,
    HelperFailed,
)

from synnefo_light.errors import Error, ProtocolError
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
    encode_message,
)
from tests.task_list import NAMES

NONCE = "0123456789abcdef" * 2
HELLO = Hello(helper_version="1", mode="run")
DONE = Finished(nonce=NONCE)


def a_conversation(skip: frozenset[str] = frozenset()) -> Conversation:
    return Conversation(version="1", nonce=NONCE, tasks=NAMES, skip=skip)


def story(*, without: frozenset[str] = frozenset()) -> list[Message]:
    tasks = [m for t in NAMES if t not in without for m in (TaskStarted(task=t), TaskDone(task=t))]
    return [HELLO, *tasks, DONE]


def told(messages: list[Message]) -> bytes:
    return b"".join(encode_message(m, seq=n) for n, m in enumerate(messages, 1))


def outcome(raw: bytes, *, skip: frozenset[str] = frozenset()) -> list[Message]:
    """What was heard of a deployment that succeeded; raises what `conclude` does."""
    conversation = a_conversation(skip)
    heard = list(conversation.feed(raw))
    conversation.conclude()
    return heard


def test_a_whole_story_is_success() -> None:
    assert outcome(told(story())) == story()


def test_a_story_told_byte_by_byte_is_success() -> None:
    conversation = a_conversation()
    heard = [m for byte in told(story()) for m in conversation.feed(bytes([byte]))]
    conversation.conclude()
    assert heard == story()


def test_tasks_that_were_left_out_need_not_be_reported() -> None:
    without = frozenset({"network", "swap"})
    assert outcome(told(story(without=without)), skip=without) == story(without=without)


def test_tasks_that_were_left_out_may_be_reported_as_skipped() -> None:
    messages = story(without=frozenset({"swap"}))
    messages.insert(1, TaskSkipped(task="swap", reason="left out"))
    assert outcome(told(messages), skip=frozenset({"swap"})) == messages


def test_a_task_may_be_skipped_for_a_reason_also_once_begun() -> None:
    messages: list[Message] = [HELLO, Warned(task=None, text="x")]
    for n, task in enumerate(NAMES):
        messages += ([TaskStarted(task=task)] if n % 2 else []) + [TaskSkipped(task=task, reason="nothing to do")]
    messages.append(DONE)
    assert outcome(told(messages)) == messages


def changed(change: Callable[[list[Message]], object]) -> bytes:
    messages = story()
    change(messages)
    return told(messages)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (b"", "ended at its start, without saying that it had finished"),
        (told([HELLO]), "ended between tasks, without saying"),
        (told(story()[:2]), f"ended in the task {NAMES[0]}, without saying"),
        (told(story())[:-1], "ended in the middle of a message"),
        (changed(lambda m: m.pop(0)), "did not say hello first"),
        (changed(lambda m: m.insert(1, HELLO)), "said hello twice"),
        (
            changed(lambda m: m.__setitem__(0, Hello(helper_version="2", mode="run"))),
            "is version 2, this host half is 1",
        ),
        (changed(lambda m: m.__setitem__(0, Hello(helper_version="1", mode="selftest"))), "started as selftest"),
        (changed(lambda m: m.append(DONE)), "went on after its last message"),
        (changed(lambda m: m.append(Warned(task=None, text="x"))), "went on after its last message"),
        (changed(lambda m: m.__setitem__(-1, Finished(nonce="0" * 32))), "does not carry the nonce"),
        (changed(lambda m: m.__delitem__(slice(1, 3))), f"finished without the tasks {NAMES[0]}"),
        (changed(lambda m: m.pop(2)), f"began the task {NAMES[1]} before {NAMES[0]} had ended"),
        (changed(lambda m: m.pop(1)), f"ended the task {NAMES[0]}, which was not running"),
        (
            changed(lambda m: m.insert(3, TaskStarted(task=NAMES[0]))),
            f"reported the task {NAMES[0]} again",
        ),
        (told(story()).replace(b'"seq":2,', b'"seq":3,'), "message number 2 was due"),
        (told(story()).replace(b'"seq":2,', b""), "message number 2 was due"),
        (b"garbage\n", "is not JSON"),
        (b"\x00" * 100 + b"\n", "is not JSON"),
        (b"[]\n", "a message is a JSON object"),
        (b"\n", "is not JSON"),
        (b"x" * (LINE_LIMIT + 1), f"a message of more than {LINE_LIMIT} bytes"),
        (b"x" * (TOTAL_LIMIT + 1), f"more than {TOTAL_LIMIT} bytes of messages"),
        (
            told([HELLO, *[Warned(task=None, text="") for _ in range(LINES_LIMIT)]]),
            f"more than {LINES_LIMIT} messages",
        ),
        (
            told([HELLO, Failed(task="hostname", reason="/etc/hostname is a\x1b[31m fifo", changed=True)]),
            "the task hostname failed: /etc/hostname is a\\x1b[31m fifo",
        ),
        (told([HELLO, Failed(task=None, reason="no disk", changed=False)]), "the helper VM failed: no disk"),
        (told([HELLO, Failed(task=None, reason="x", changed=False), DONE]), "went on after its last message"),
    ],
)
def test_anything_else_is_failure(raw: bytes, sentence: str) -> None:
    with pytest.raises(Error) as caught:
        outcome(raw)
    assert sentence in str(caught.value)
    assert caught.value.exit_code in (4, 5)


def test_a_task_that_was_left_out_may_not_begin() -> None:
    with pytest.raises(ProtocolError, match="began the task swap, which was to be left out"):
        outcome(told(story()), skip=frozenset({"swap"}))


def test_failure_says_in_which_task_and_whether_the_disk_was_changed() -> None:
    with pytest.raises(HelperFailed) as caught:
        outcome(told([HELLO, TaskStarted(task="mount"), Failed(task="mount", reason="x", changed=False)]))
    assert (caught.value.task, caught.value.changed) == ("mount", False)


def test_a_selftest_says_hello_and_no_more() -> None:
    hello = Hello(helper_version="1", mode="selftest")
    conversation = Conversation(version="1", nonce=None)
    list(conversation.feed(told([hello])))
    conversation.conclude()
    for more in (hello, Finished(nonce=NONCE), TaskStarted(task="mount")):
        conversation = Conversation(version="1", nonce=None)
        with pytest.raises(ProtocolError):
            list(conversation.feed(told([hello, more])))


@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_story_is_an_error_of_ours_and_never_success(seed: int) -> None:
    """Fuzz: bytes changed, cut out or doubled. Only a change that keeps the meaning may pass."""
    chance = random.Random(seed)
    raw = bytearray(told(story()))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw))
        kind = chance.randrange(3)
        if kind == 0:
            raw[at] = chance.randrange(256)
        elif kind == 1:
            del raw[at : at + chance.randint(1, 40)]
        else:
            raw[at:at] = raw[at : at + chance.randint(1, 40)]
    conversation = a_conversation()
    heard: list[Message] = []
    try:
        for start in range(0, len(raw), 7):
            heard += conversation.feed(bytes(raw[start : start + 7]))
        conversation.conclude()
    except (ProtocolError, HelperFailed) as e:
        assert str(e).isprintable()
    else:
        assert heard == story()


def test_messages_nested_too_deeply_are_refused() -> None:
    with pytest.raises(ProtocolError):
        list(a_conversation().feed(b"[" * 4000 + b"\n"))
    with pytest.raises(ProtocolError):
        list(a_conversation().feed(json.dumps({"seq": 1, "type": {"a": [1]}}).encode() + b"\n"))


def test_the_console_keeps_its_beginning_and_its_end() -> None:
    console = ConsoleLog()
    for n in range(200_000):
        console.feed(b"line %d\r\n" % n)
    lines = console.lines()
    assert lines[0] == "line 0" and lines[-1] == "line 199999"
    assert sum(map(len, lines)) <= CONSOLE_HEAD + CONSOLE_TAIL
    assert [line for line in lines if line.startswith("[")] == [
        f"[{console.total - CONSOLE_HEAD - CONSOLE_TAIL} bytes were thrown away here]"
    ]


def test_the_console_is_escaped() -> None:
    console = ConsoleLog()
    console.feed(b"\x1b[2J\x07evil\xff\r\nnext\n")
    assert console.lines() == ["\\x1b[2J\\x07evil\\xff", "next"]


def test_a_short_console_is_kept_whole() -> None:
    console = ConsoleLog()
    text = "".join(f"{n}\n" for n in range(30_000)).encode()
    for at in range(0, len(text), 1000):
        console.feed(text[at : at + 1000])
    assert console.lines() == [str(n) for n in range(30_000)]


def test_a_flood_of_the_console_ends_it() -> None:
    console = ConsoleLog()
    with pytest.raises(ProtocolError, match="flooded its console"):
        for _ in range(FLOOD // 65536 + 1):
            console.feed(b"x" * 65536)


def test_a_task_that_the_helper_does_not_have_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="the task paint, which it does not have"):
        outcome(told([HELLO, TaskStarted(task="paint")]))


def test_the_images_size_is_told_once_and_by_the_running_task() -> None:
    def measured(*sizes: int, task: str = NAMES[0]) -> list[Message]:
        return [HELLO, TaskStarted(task=NAMES[0]), *(Measured(task=task, size=size) for size in sizes)]

    assert len(list(a_conversation().feed(told(measured(1))))) == 3
    for story_of in (measured(1, 1), measured(1, task=NAMES[1])):
        with pytest.raises(ProtocolError, match="out of turn, or again"):
            outcome(told(story_of))
    for size in (0, -1, 1 << 60):
        with pytest.raises(ProtocolError, match="the size is none that a disk has"):
            outcome(told(measured(size)))


def test_progress_belongs_to_the_running_task_and_has_a_limit() -> None:
    def progress(times: int, task: str = NAMES[0]) -> list[Message]:
        return [HELLO, TaskStarted(task=NAMES[0]), *(Progressed(task=task, done=n, total=times) for n in range(times))]

    conversation = a_conversation()
    assert len(list(conversation.feed(told(progress(PROGRESS_LIMIT))))) == PROGRESS_LIMIT + 2
    for story_of in (progress(PROGRESS_LIMIT + 1), progress(1, task=NAMES[1])):
        with pytest.raises(ProtocolError, match="out of turn, or too often"):
            outcome(told(story_of))
