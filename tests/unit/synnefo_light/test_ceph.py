"""What Ceph answers is a sentence; what may wait for ever does not."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from synnefo_light import ceph
from synnefo_light.errors import UserError

ACCESS = ceph.Access(conf=Path("/etc/ceph/ceph.conf"), user="ganeti")


class Answer(Exception):
    """An error as the bindings raise it."""

    def __init__(self, number: int) -> None:
        self.errno = number
        super().__init__(f"answer {number}")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ETIMEDOUT, "did not answer in time"),
        (errno.EACCES, "refused client.ganeti: its key"),
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is full"),
        (errno.EIO, "Ceph answered: answer 5"),
    ],
)
def test_an_answer_says_what_was_asked_and_what_is_wrong(number: int, words: str) -> None:
    told = str(ceph.explain(Answer(number), "remove the disk web1", ACCESS))
    assert told.startswith("asked to remove the disk web1, Ceph")
    assert words in told


def test_a_client_on_the_blocklist_is_told_apart() -> None:
    assert isinstance(ceph.explain(Answer(errno.ESHUTDOWN), "write", ACCESS), ceph.Fenced)
    assert not isinstance(ceph.explain(Answer(errno.EIO), "write", ACCESS), ceph.Fenced)


def test_an_error_without_a_number_is_told_as_it_is() -> None:
    assert "Ceph answered: odd" in str(ceph.explain(Exception("odd"), "list", ACCESS))


@pytest.mark.parametrize("word", ["", "a/b", "a@b", "-a", "a b", "a\n", "a" * 101, ".."])
def test_a_name_that_a_tool_could_take_for_something_else_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="the pool"):
        ceph.check_word(word, what="pool")


@pytest.mark.parametrize("word", ["rbd", "ec-data.2", "_x"])
def test_usual_names_pass(word: str) -> None:
    assert ceph.check_word(word, what="pool") == word


def test_what_does_not_come_back_is_given_up() -> None:
    never = threading.Event()
    with pytest.raises(ceph.CephFault, match=r"asked to break the lock, Ceph did not finish within 0\.05 s"):
        ceph.bounded(never.wait, "break the lock", timeout_s=0.05)
    never.set()


def test_what_comes_back_in_time_is_handed_on_with_its_error() -> None:
    assert ceph.bounded(lambda: 7, "count", timeout_s=5) == 7
    with pytest.raises(Answer):
        ceph.bounded(_fail, "fail", timeout_s=5)


def _fail() -> None:
    raise Answer(5)


def test_bindings_that_are_not_installed_are_named() -> None:
    with pytest.raises(ceph.CephFault, match=r"python3-no_such_binding is not"):
        ceph.load("no_such_binding")


def test_what_is_asked_meanwhile_is_over_when_the_body_goes_on() -> None:
    begun, told = threading.Event(), []

    def act() -> None:
        begun.wait(5)
        told.append("answered")

    with ceph.meanwhile(act):
        assert told == []
        begun.set()
    assert told == ["answered"]


def test_what_fails_meanwhile_is_raised_after_the_body_whose_own_error_comes_first() -> None:
    def fail() -> None:
        raise ceph.CephFault("no space is told")

    told = []
    with pytest.raises(ceph.CephFault, match="no space is told"), ceph.meanwhile(fail):
        told.append("the body ran")
    assert told == ["the body ran"]
    with pytest.raises(KeyError), ceph.meanwhile(fail):
        raise KeyError
