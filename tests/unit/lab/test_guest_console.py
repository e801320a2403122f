"""The serial console's dialogue, against a guest that is a list of what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from snf_lab.guest_console import Console, last_line, strip_terminal

from synnefo_light.errors import PeerError


class FakeGuest:
    """Says what `answers` gives for each thing sent, and nothing otherwise; time passes while it is silent."""

    def __init__(self, answer: Callable[[bytes], bytes], *, said: bytes = b"") -> None:
        self.now = 0.0
        self.sent: list[bytes] = []
        self._answer = answer
        self._pending = said

    def clock(self) -> float:
        return self.now

    def receive(self, *, wait_s: float) -> bytes:
        content, self._pending = self._pending[:7], self._pending[7:]
        if not content:
            self.now += wait_s
        return content

    def send(self, content: bytes) -> None:
        self.sent.append(content)
        self._pending += self._answer(content)


def a_debian(password: bytes) -> Callable[[bytes], bytes]:
    state = {"at": "getty"}

    def answer(sent: bytes) -> bytes:
        match state["at"]:
            case "getty" if sent == b"\r":
                return b"\r\n\r\nDebian GNU/Linux 12 demo ttyS0\r\n\r\ndemo login: "
            case "getty":
                state["at"] = "password"
                return sent + b"\nPassword: "
            case "password" if sent != password + b"\r":
                state["at"] = "getty"
                return b"\r\n\r\nLogin incorrect\r\ndemo login: "
            case "password":
                state["at"] = "shell"
                return b"\r\nLinux demo\r\n\x1b[?2004hroot@demo:~# "
            case _:
                return sent + b"\nroot demo\r\n<end>\r\n\x1b[?2004hroot@demo:~# "

    return answer


def test_a_login_asks_for_the_prompt_that_was_missed_and_answers_it() -> None:
    guest = FakeGuest(a_debian(b"secret"), said=b"[  OK  ] Started getty.\r\n")
    console = Console(guest, clock=guest.clock)
    console.log_in(user="root", password="secret", timeout_s=60)
    assert guest.sent == [b"\r", b"root\r", b"secret\r"]
    assert console.ask('echo "$(id -un) $(hostname)"', timeout_s=10) == "root demo"


def test_a_wrong_password_is_said() -> None:
    guest = FakeGuest(a_debian(b"secret"))
    with pytest.raises(PeerError, match="refused the password of root"):
        Console(guest, clock=guest.clock).log_in(user="root", password="other", timeout_s=60)


def test_a_guest_that_hangs_is_given_up_with_its_last_words() -> None:
    guest = FakeGuest(lambda sent: b"", said=b"Booting\r\nKernel panic - not syncing\r\n")
    with pytest.raises(PeerError, match="it last said: Kernel panic - not syncing"):
        Console(guest, clock=guest.clock).log_in(user="root", password="x", timeout_s=60)
    assert guest.now >= 60
    assert set(guest.sent) == {b"\r"}


def test_a_flood_is_not_kept() -> None:
    guest = FakeGuest(lambda sent: b"", said=b"x" * 300_000 + b"\r\ndone login: ")
    console = Console(guest, clock=guest.clock)
    assert len(console.wait_for(b"login: $", until=60)) <= 64 << 10


def test_what_the_guest_prints_cannot_move_our_cursor() -> None:
    told: list[str] = []
    guest = FakeGuest(lambda sent: b"", said=b"\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07\x08ok\r\nlogin: ")
    Console(guest, clock=guest.clock, told=told.append).wait_for(b"login: $", until=60)
    assert all(text.isprintable() for text in told)
    assert told[-1] == "login:"


def test_an_unfinished_sequence_is_kept_until_its_end_comes() -> None:
    first = strip_terminal(b"a\x1b[3")
    assert strip_terminal(first + b"1mb") == b"ab"


def test_the_last_line_is_the_last_with_words() -> None:
    assert last_line(b"one\r\ntwo \r\n\r\n") == "two"
    assert last_line(b"") == ""
