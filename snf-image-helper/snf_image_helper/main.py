"""Process 1 of the VM: say hello, deploy, power off.

Whatever happens the VM ends: every way out of `main` powers it off, and if even Python dies the kernel panics, which
ends QEMU (panic=-1 with -no-reboot). What the host takes for success is the last message, with the manifest's nonce.
"""

from __future__ import annotations

import os
import sys

from snf_image_helper.channel import Channel
from snf_image_helper.syscalls import power_off
from synnefo_light import __version__
from synnefo_light.manifest import Hello


def main() -> None:
    try:
        with open("/proc/cmdline", encoding="ascii") as file:
            selftest = "snf.helper=selftest" in file.read().split()
        channel = Channel()
        channel.send(Hello(helper_version=__version__, mode="selftest" if selftest else "run"))
        if not selftest:
            # Imported only now, so that a selftest costs no more than the proof that a kernel boots.
            from snf_image_helper.deployment import deploy

            deploy(channel)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os.sync()
        power_off()
