"""What is believed of gpgv's words, and how it is run; real keys sign in tests/real."""

from __future__ import annotations

import pytest
from snf_image_host.signature import BAD, parse_status, plan_gpgv

GOOD = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 1ECB8EA1985BCA1B me\n[GNUPG:] VALIDSIG C4D64F11 2026-11-21 0 8 00 C4D64F11\n"


def test_a_good_signature_gives_its_keys_fingerprint() -> None:
    assert parse_status(GOOD) == ("C4D64F11", None)


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_word_is_enough(kind: str) -> None:
    for text in (f"[GNUPG:] {kind} 1 2 3\n{GOOD}", f"{GOOD}[GNUPG:] {kind}\n"):
        assert parse_status(text) == ("", BAD[kind])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[GNUPG:] GOODSIG 1 me\n",
        "[GNUPG:] VALIDSIG C4D64F11 1\n",
        "[GNUPG:] VALIDSIG\n[GNUPG:] GOODSIG 1 me\n",
        GOOD.replace("[GNUPG:]", "gpgv:"),
        "[GNUPG:] \n[GNUPG:]\n",
        "[GNUPG:] GOODSIG 1 me\u2028[GNUPG:] VALIDSIG C4D64F11\n",
    ],
)
def test_anything_less_than_a_good_and_valid_signature_is_none(text: str) -> None:
    assert parse_status(text) == ("", "gpgv found no good signature in it")


def test_gpgv_is_run_as_a_stranger_without_a_network_and_without_files() -> None:
    words = plan_gpgv([7, 8], signature=6, uid=990, gid=991, limit_s=60)
    line = " ".join(words)
    assert "unshare --net --ipc --uts --mount --" in line
    assert "setpriv --reuid 990 --regid 991 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs" in line
    assert line.index("unshare") < line.index("--reuid") < line.index("gpgv")
    assert "--cpu=60" in line and "--fsize=1048576" in line
    assert line.endswith("--keyring /proc/self/fd/7 --keyring /proc/self/fd/8 /proc/self/fd/6 -")
