"""FTP servers on 127.0.0.1: a good one (pyftpdlib, with or without TLS), and one that says what it is told to."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

#: Arguments: a folder, and a file with key and certificate or nothing. Says its port. Not in our process: pyftpdlib
#: brings asyncore, whose deprecation is an error here.
SERVER = """
import sys
from pyftpdlib import handlers
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.log import config_logging
from pyftpdlib.servers import FTPServer
folder, certificate = sys.argv[1:]
config_logging(level=50)
handler = handlers.TLS_FTPHandler if certificate else handlers.FTPHandler
handler.authorizer = DummyAuthorizer()
handler.authorizer.add_anonymous(folder)
if certificate:
    handler.certfile = certificate
    handler.tls_control_required = handler.tls_data_required = True
server = FTPServer(("127.0.0.1", 0), handler)
print(server.socket.getsockname()[1], flush=True)
server.serve_forever()
"""
PYTHON = "/usr/bin/python3"


@contextmanager
def serving(folder: Path, *, certificate: Path | None = None) -> Iterator[int]:
    """The files of `folder`, for anonymous; with a certificate by TLS alone. Yields the port."""
    if subprocess.run(
        [PYTHON, "-Wignore", "-c", "import pyftpdlib, OpenSSL"], capture_output=True, check=False
    ).returncode:
        pytest.skip("there is no pyftpdlib; install python3-pyftpdlib and python3-openssl")
    words = [PYTHON, "-Wignore", "-c", SERVER, str(folder), str(certificate or "")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.kill()


def certificate(folder: Path, *, name: str) -> Path:
    """A key and a certificate that signs itself, for `name` ("IP:127.0.0.1"), in one file."""
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    words += ["-days", "2", "-subj", "/CN=ftp", "-addext", f"subjectAltName={name}"]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


Answer = Callable[[str, socket.socket], None]


@contextmanager
def answering(answers: dict[str, str], *, data: bytes = b"", hold: bool = False) -> Iterator[tuple[int, list[str]]]:
    """A server with these answers by command ("" greets); yields its port and what it is asked.

    PASV opens a port that sends `data`; with `hold` it keeps that connection open. {port} in an answer is that port,
    as two numbers.
    """
    asked: list[str] = []
    control = socket.create_server(("127.0.0.1", 0))
    sending = socket.create_server(("127.0.0.1", 0))
    control.settimeout(20)
    sending.settimeout(20)
    port = sending.getsockname()[1]
    released = threading.Event()

    def send() -> None:
        with suppress(OSError):
            connection, _ = sending.accept()
            with connection:
                connection.sendall(data)
                if hold:
                    released.wait(20)

    def talk() -> None:
        with suppress(OSError):
            connection, _ = control.accept()
            with connection, connection.makefile("r", encoding="utf-8", newline="\r\n") as lines:
                connection.settimeout(20)
                reply(connection, "")
                for line in lines:
                    asked.append(line.strip())
                    reply(connection, line.split()[0].upper())

    def reply(connection: socket.socket, command: str) -> None:
        default = {"": "220 hello", "USER": "230 in", "TYPE": "200 ok", "SIZE": f"213 {len(data)}", "RETR": "150 here"}
        text = answers.get(command, default.get(command, "227 passive (127,0,0,1,{port})"))
        connection.sendall(text.replace("{port}", f"{port >> 8},{port & 255}").encode() + b"\r\n")

    threads = [threading.Thread(target=send, daemon=True), threading.Thread(target=talk, daemon=True)]
    for thread in threads:
        thread.start()
    try:
        yield control.getsockname()[1], asked
    finally:
        released.set()
        for end in (control, sending):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in threads:
            thread.join(20)
