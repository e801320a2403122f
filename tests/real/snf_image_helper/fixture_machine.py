"""The helper's own VM as a workshop: a script of ours runs in it instead of the helper, on disks that are files.

For what cannot be made without a kernel: LVM (the machine that runs the tests need not have a device mapper) and
subvolumes of btrfs. A script sees the disks as /dev/disk0, /dev/disk1 in the order they are given, and can import
snf_image_helper. The disks that come out are real: the tools are Debian's, the metadata is theirs.
"""

from __future__ import annotations

import subprocess
import tempfile
import textwrap
from pathlib import Path

from tests.initrd import newc
from tests.real.snf_image_helper import virtual_machine

DONE = "the script is done"
_PROLOGUE = """\
import os, shutil, subprocess, sys, traceback
from pathlib import Path
from snf_image_helper.disks import Disks, read_node, write_node
from snf_image_helper.modules import load
from snf_image_helper.syscalls import mount, power_off, umount

def run(*argv):
    env = {"DM_DISABLE_UDEV": "1", "LVM_SYSTEM_DIR": "", "PATH": "/usr/sbin:/usr/bin"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env)
    print(*argv, "->", done.returncode, done.stdout, done.stderr, flush=True)
    if done.returncode:
        raise SystemExit(f"{argv[0]} failed")
    return done.stdout

def lvm(command, *words):
    load("dm_mod")
    config = ('devices { filter=["a|^/dev/vd.*|","r|.*|"] use_devicesfile=0 obtain_device_list_from_udev=0 } '
              'activation { udev_sync=0 udev_rules=0 monitoring=0 } backup { backup=0 archive=0 }')
    return run("/usr/sbin/lvm", command, "--config", config, *words)

def copy(source, target):
    with open(source, "rb") as given, open(target, "r+b") as taken:
        while data := given.read(1 << 20):
            if data.count(0) == len(data):
                taken.seek(len(data), 1)
            else:
                taken.write(data)
        os.fsync(taken.fileno())

disks = Disks()
try:
    disk0, disk1 = (disks.node(f"snf-disk{n}") if n < COUNT else None for n in range(2))
"""
_EPILOGUE = f"""
    print("{DONE}", flush=True)
except BaseException:
    traceback.print_exc()
finally:
    sys.stdout.flush()
    os.sync()
    power_off()
"""


# As the VM's own init, but that it goes on with the script.
_INIT = """\
#!/usr/bin/python3.11 -ISB
from snf_image_helper.start import enter_root
with open("/script.py", encoding="utf-8") as file:
    script = file.read()
enter_root()
exec(compile(script, "/script.py", "exec"))
"""


def run_script(script: str, *disks: Path) -> str:
    """Run Python in the VM. Returns what was printed on the console; fails if the script did."""
    folder = virtual_machine.image()
    body = _PROLOGUE.replace("COUNT", str(len(disks))) + textwrap.indent(textwrap.dedent(script), "    ") + _EPILOGUE
    with tempfile.TemporaryDirectory() as work:
        console, initrd = Path(work, "console"), Path(work, "initrd.img")
        more = {"init": (0o755, _INIT), "script.py": (0o644, body)}
        initrd.write_bytes((folder / "initrd.img").read_bytes() + newc(more))
        subprocess.run(
            [
                *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "512", "-smp", "1"),
                *("-nodefaults", "-nic", "none", "-display", "none", "-no-user-config", "-no-reboot"),
                *("-kernel", folder / "vmlinux", "-initrd", initrd),
                *("-cpu", virtual_machine.argument("-cpu"), "-append", virtual_machine.argument("-append")),
                *("-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"),
                *virtual_machine._disk("snf-root", folder / "root.squashfs", read_only=True),
                *(
                    w
                    for n, disk in enumerate(disks)
                    for w in virtual_machine._disk(f"snf-disk{n}", disk, read_only=False)
                ),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=True,
        )
        shown = console.read_bytes().decode("utf-8", "replace")
    assert DONE in shown, shown
    return shown
