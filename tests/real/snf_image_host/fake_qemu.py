#!/usr/bin/python3 -I
"""In place of QEMU: speaks the helper VM's protocol on the descriptors that the command line names, well or badly.

Standard library only and one file: it is copied to a folder that everybody may read and runs as the unprivileged user,
in the namespaces and under the limits of the real one. BEHAVIOUR, VERSION and TASKS are replaced when it is copied.
"""

import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path

BEHAVIOUR = "good"
VERSION = "0.1.0"
TASKS = ["hostname"]


def descriptors() -> tuple[dict[str, int], dict[str, int]]:
    """The sockets by their chardev's name, and the disks by their serial."""
    options = [(w, dict(p.split("=", 1) for p in w.split(",") if "=" in p)) for w in sys.argv]
    sockets = {o["id"]: int(o["fd"]) for w, o in options if w.startswith("socket,")}
    sets = {f"/dev/fdset/{o['set']}": int(o["fd"]) for w, o in options if w.startswith("fd=")}
    nodes = {o["node-name"]: sets[o["file.filename"]] for w, o in options if w.startswith("driver=raw")}
    disks = {o["serial"]: nodes[o["drive"]] for w, o in options if w.startswith("virtio-blk-pci")}
    return sockets, disks


SOCKETS, DISKS = descriptors()
CONSOLE = socket.socket(fileno=SOCKETS["console"])
MESSAGES = socket.socket(fileno=SOCKETS["messages"])
SEQUENCE = 0


def manifest() -> dict[str, object]:
    raw = os.pread(DISKS["snf-manifest"], 8 << 20, 0)
    (length,) = struct.unpack_from("<Q", raw, 16)
    found: dict[str, object] = json.loads(raw[64 : 64 + length])
    return found


def say(kind: str, **fields: object) -> None:
    global SEQUENCE  # noqa: PLW0603
    SEQUENCE += 1
    MESSAGES.sendall(json.dumps({"seq": SEQUENCE, "type": kind, **fields}).encode() + b"\n")


def hello(version: str = VERSION) -> None:
    mode = "selftest" if any("snf.helper=selftest" in w for w in sys.argv) else "run"
    say("hello", helper_version=version, mode=mode)


def tasks(until: str | None = None) -> None:
    for task in TASKS:
        if task in order["skip"]:  # type: ignore[operator]
            continue
        say("task-started", task=task)
        if task == until:
            return
        if task == "convert":
            convert()
        if task == "hostname":
            os.pwrite(DISKS["snf-disk0"], b"written by the fake helper", 2 << 20)
        say("task-done", task=task)


def convert() -> None:
    """Put the source's bytes onto disk 0 as they are, and say what was asked for, and that the source is read-only."""
    source, disk = DISKS["snf-source"], DISKS["snf-disk0"]
    readonly = fcntl.fcntl(source, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    CONSOLE.sendall(json.dumps({"source": order["source"], "readonly": readonly}).encode() + b"\n")
    at = 0
    while at < order["source"]["size"]:  # type: ignore[index]
        block = os.pread(source, 1 << 20, at)
        at += os.pwrite(disk, block, at)
    say("measured", task="convert", size=at)


def finished() -> None:
    say("finished", nonce=order["nonce"])


def flood(where: socket.socket, block: bytes) -> None:
    for _n in range((1 << 30) // len(block)):
        where.sendall(block)


kind, _, argument = BEHAVIOUR.partition(":")
if kind == "early-exit":
    print("qemu-system-x86_64: no such machine", file=sys.stderr)
    sys.exit(1)
if kind == "greedy":
    taken = bytearray(os.urandom(1 << 20)) * 1500
    time.sleep(3600)
if kind == "hang":
    time.sleep(3600)
if kind == "flood-console":
    flood(CONSOLE, b"x" * 65536)
if kind == "flood-channel":
    flood(MESSAGES, b"x" * 65536)
if kind == "flood-lines":
    flood(MESSAGES, b"{}\n" * 1000)
if kind == "flood-stderr":
    for _n in range(1 << 14):
        os.write(2, b"e" * 65536)
if kind == "garbage":
    MESSAGES.sendall(os.urandom(4096) + b"\n")
    time.sleep(3600)

if any("snf.helper=selftest" in w for w in sys.argv):
    hello()
    sys.exit(0)
order = manifest()
if order["windows"] and order["windows"]["answer_file"]:  # type: ignore[index]
    CONSOLE.sendall(json.dumps({"answer_file": order["windows"]["answer_file"]}).encode() + b"\n")  # type: ignore[index]
hello("9.9.9" if kind == "wrong-version" else VERSION)
if kind == "hang-in":
    tasks(until=argument)
    time.sleep(3600)
elif kind == "dies-at":
    tasks(until=argument)
    os.kill(os.getpid(), signal.SIGSEGV)
elif kind == "stops-at":
    tasks(until=argument)
elif kind == "fails-at":
    tasks(until=argument)
    say("failed", task=argument, reason="the \x1b[31mpartition\x07 table\nis odd", changed=True)
elif kind == "wrong-nonce":
    tasks()
    say("finished", nonce="0" * 32)
elif kind == "success-twice":
    tasks()
    finished()
    finished()
elif kind == "success-at-once":
    finished()
elif kind == "hello-twice":
    hello()
    tasks()
    finished()
elif kind == "gap":
    SEQUENCE += 1
    tasks()
    finished()
elif kind == "exit-3":
    tasks()
    finished()
    sys.exit(3)
elif kind == "stays":
    tasks()
    finished()
    time.sleep(3600)
elif kind == "leaves-a-child":
    if os.fork() == 0:
        os.setsid()
        while True:
            os.pwrite(DISKS["snf-disk0"], b"written by the child", 0)
            time.sleep(0.01)
    tasks(until="mount")
    say("failed", task="mount", reason="odd", changed=True)
elif kind == "slow":
    time.sleep(float(argument))
    tasks()
    finished()
elif kind == "report":
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines}
    spaces = {name: os.stat(f"/proc/thread-self/ns/{name}").st_ino for name in ("net", "ipc", "uts", "mnt", "pid")}
    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("AS", "CPU", "FSIZE", "CORE")}
    folder = Path("/proc/thread-self/fd")
    links = [str(link.readlink()) for link in folder.iterdir() if link.is_symlink()]
    known = {"status": status, "namespaces": spaces, "limits": limits, "links": links, "environ": dict(os.environ)}
    CONSOLE.sendall(json.dumps(known, indent=0).encode())
    tasks()
    finished()
else:
    tasks()
    finished()
