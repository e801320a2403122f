"""The figures of "Images": the helper VM beside libguestfs, its time line, conversions inside it, and attacks on it.

Ours and the peers do the same work on the same image in the same run: grow, check, the same edits. A ratio is our time
by theirs, of the least of each. The attacks are a sample of each group; `./lab torture all` runs every one.
"""

from __future__ import annotations

import json
import os
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from snf_lab import bench_convert, bench_helper, demo, torture
from snf_lab.bench_deploy import PASSWORD, measure_peers, ready_peers
from snf_lab.bench_peers import Sample
from snf_lab.guest_deploy import Order
from snf_lab.guest_recipe import GuestRecipe
from snf_lab.lab import Lab
from synnefo_light.run import run

#: How many attacks of each group: enough to see that they still pass, few enough for a benchmark.
ATTACKS = 8


def run_bench(lab: Lab, *, release: str, rounds: int, peers: bool) -> Mapping[str, object]:
    """Raises ToolError or PeerError when one side does not do its work. Without `peers` no ratio is given."""
    lab.ensure_up(nodes=1, release=release)
    with lab.locked():
        image, helper = demo.ensure_image(lab, GuestRecipe()), lab.helper_image()
        with tempfile.TemporaryDirectory(prefix="snf-bench-", dir=lab.state.images) as name:
            order = demo.plan_order(guest="bookworm", authorized_key=make_key(Path(name)), password=PASSWORD)
            bench = bench_helper.Bench(Path(name), image, helper=helper, parameters=same_work(order))
            figures = bench_helper.measure(bench, lab, rounds=rounds)
            if peers:
                tools = ready_peers(lab, accel=str(figures["accel"]))
                with lab.progress.step("boot libguestfs's appliance alone"):
                    tools.warm_up()
                theirs: dict[str, list[Sample]] = {"libguestfs": [], "virt_customize": [], "virt_resize": []}
                for number in range(1, rounds + 1):
                    measure_peers(tools, order, image, into=theirs, progress=lab.progress, number=number)
                figures |= ratios(figures, theirs)
        with lab.progress.step("convert a qcow2, in the helper VM and on the host"):
            converted = bench_convert.run_convert(helper=helper, rounds=rounds)
        figures |= {key: value for key, value in converted.items() if key != "samples"}
    figures |= json.loads(torture.run_torture(lab, "all", count=ATTACKS).line)
    figures["load_1min"] = round(os.getloadavg()[0], 2)
    return figures


def make_key(folder: Path) -> str:
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", folder / "key"], timeout_s=30)
    return (folder / "key.pub").read_text().strip()


def same_work(order: Order) -> dict[str, str]:
    """The OS parameters of what the peers are asked for."""
    file = {
        "path": order.file_path,
        "contents": b64encode(order.file_content).decode(),
        "owner": order.file_owner,
        "group": order.file_group,
        "mode": order.file_mode,
    }
    return {
        "img_passwd": order.password,
        "auth_keys": order.authorized_key,
        "img_personality": json.dumps([file]),
    }


def ratios(figures: Mapping[str, object], theirs: Mapping[str, list[Sample]]) -> dict[str, object]:
    wall = {name: min(sample.wall_s for sample in samples) for name, samples in theirs.items()}
    cpu = {name: min(sample.cpu_s for sample in samples) for name, samples in theirs.items()}
    ours, ours_cpu = float(str(figures["helper_s"])), float(str(figures["helper_cpu_s"]))
    return {
        "helper_ratio_guestfish": round(ours / wall["libguestfs"], 3),
        "helper_ratio_virt": round(ours / (wall["virt_customize"] + wall["virt_resize"]), 3),
        "helper_cpu_ratio_guestfish": round(ours_cpu / cpu["libguestfs"], 3),
        "helper_cpu_ratio_virt": round(ours_cpu / (cpu["virt_customize"] + cpu["virt_resize"]), 3),
        **{f"{name}_s": value for name, value in wall.items()},
        **{f"{name}_cpu_s": value for name, value in cpu.items()},
    }
