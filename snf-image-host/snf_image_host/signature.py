"""Check a detached OpenPGP signature of an image with gpgv(1), while the image's bytes go by.

Who signed what is gpgv's to say; the keys it believes are those of the keyrings that the administrator named. It reads
a signature that a stranger made, so it runs as the unprivileged user, without a network, under limits, and gets the
signature and the keyrings as sealed memory: it needs no file of the node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from snf_image_host.memory import sealed_memory
from snf_image_host.settings import Settings
from snf_image_host.vm import unprivileged
from synnefo_light.errors import EnvironmentFault, PeerError
from synnefo_light.files import read_bounded
from synnefo_light.log import escape, logger
from synnefo_light.run import Feeding, feed
from synnefo_light.units import MIB

KEYRING_LIMIT: Final = 16 * MIB
_ZEROS: Final = bytes(MIB)
#: What gpgv says on its status descriptor (GnuPG's doc/DETAILS) instead of, or besides, GOODSIG.
BAD: Final = {
    "BADSIG": "the bytes are not those that were signed",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key that made it has expired",
    "REVKEYSIG": "the key that made it was revoked",
    "NO_PUBKEY": "the key that made it is in none of the keyrings (signature_keyrings)",
    "ERRSIG": "it cannot be checked",
    "NODATA": "what was given is no signature",
    "UNEXPECTED": "what was given is no detached signature",
}


class SignatureCheck:
    """The image's bytes, in order; `check` at their end."""

    def __init__(self, gpgv: Feeding) -> None:
        self._gpgv = gpgv

    def update(self, data: memoryview) -> None:
        self._gpgv.write(data)

    def zeros(self, count: int) -> None:
        for start in range(0, count, len(_ZEROS)):
            self._gpgv.write(memoryview(_ZEROS)[: min(len(_ZEROS), count - start)])

    def check(self) -> None:
        """Raises PeerError when the signature is not good."""
        done = self._gpgv.finish()
        fingerprint, why = parse_status(done.text)
        if why is None and done.returncode != 0:
            why = _last(done.stderr) or f"gpgv exited with {done.returncode}"
        if why is not None:
            raise PeerError(f"the image's signature (img_signature) is not good: {why}")
        logger.info("signature good key=%s", fingerprint)


def parse_status(text: str) -> tuple[str, str | None]:
    """(fingerprint of the key, None), or ("", why the signature is not good): good needs a GOODSIG and nothing bad."""
    # Not splitlines: a key's name may hold what that takes for the end of a line (U+2028), and gpgv does not.
    words = [line.split()[1:] for line in text.split("\n") if line.startswith("[GNUPG:] ")]
    kinds = [word[0] for word in words if word]
    for kind, why in BAD.items():
        if kind in kinds:
            return "", why
    valid = [word[1] for word in words if word[:1] == ["VALIDSIG"] and len(word) > 1]
    if "GOODSIG" not in kinds or not valid:
        return "", "gpgv found no good signature in it"
    return escape(valid[0], limit=80), None


def plan_gpgv(keyrings: Sequence[int], *, signature: int, uid: int, gid: int, limit_s: int) -> tuple[str, ...]:
    """gpgv's command line; `keyrings` and `signature` are descriptors that it inherits. Pure."""
    return (
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("prlimit", f"--as={512 * MIB}", f"--cpu={limit_s}", f"--fsize={MIB}", "--nofile=64", "--core=0", "--"),
        *("unshare", "--net", "--ipc", "--uts", "--mount", "--"),
        *("setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups", "--inh-caps=-all"),
        *("--bounding-set=-all", "--no-new-privs", "--pdeathsig", "KILL", "--"),
        *("gpgv", "--homedir", "/nonexistent", "--weak-digest", "SHA1", "--status-fd", "1"),
        *(word for fd in keyrings for word in ("--keyring", f"/proc/self/fd/{fd}")),
        *(f"/proc/self/fd/{signature}", "-"),
    )


@contextlib.contextmanager
def checking_signature(signature: bytes, settings: Settings) -> Iterator[SignatureCheck]:
    """Start gpgv. Raises EnvironmentFault for a keyring that cannot be read, ToolError without gpgv."""
    with contextlib.ExitStack() as opened:
        user = unprivileged(settings)
        fd = opened.enter_context(sealed_memory(signature, name="snf-signature"))
        keyrings = [
            opened.enter_context(sealed_memory(read_keyring(Path(name)), name="snf-keyring"))
            for name in settings.signature_keyrings
        ]
        command = plan_gpgv(keyrings, signature=fd, uid=user.pw_uid, gid=user.pw_gid, limit_s=settings.http_limit_s)
        gpgv = opened.enter_context(feed(command, timeout_s=settings.http_limit_s, pass_fds=(fd, *keyrings)))
        yield SignatureCheck(gpgv)


def read_keyring(path: Path) -> bytes:
    """Raises EnvironmentFault for one that cannot be read, and for an armored one, in which gpgv finds no key."""
    try:
        content = read_bounded(path, limit=KEYRING_LIMIT)
    except OSError as e:
        raise EnvironmentFault(f"the keyring {path} (signature_keyrings) cannot be read: {e.strerror}") from e
    if content.lstrip().startswith(b"-----BEGIN"):
        raise EnvironmentFault(
            f"the keyring {path} (signature_keyrings) is armored, which gpgv does not read; "
            f"make it binary with gpg --dearmor"
        )
    return content


def _last(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return escape(lines[-1], limit=200) if lines else ""
