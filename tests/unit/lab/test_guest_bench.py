"""The peers get the same work as we do, and the figures are what they are called."""

from __future__ import annotations

import json
import shlex

from snf_lab import demo
from snf_lab.bench_deploy import OurSample, comparison_table, plan_edits, summarise
from snf_lab.bench_peers import (
    Sample,
    find_root_start,
    plan_virt_customize,
    quote_guestfish,
    render_guestfish,
    root_end_sector,
)

ORDER = demo.plan_order(guest="bookworm", authorized_key="ssh-ed25519 AAAA lab", password="p w")
EDITS = plan_edits(ORDER)
GIB4 = 4 << 30
#: What a deployment does to files; each peer has to name each.
PLACES = (
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/network/interfaces",
    "/etc/resolv.conf",
    "ssh_host_",
    "/srv/demo/welcome",
)


def ours(**changed: float) -> OurSample:
    base = dict.fromkeys(OurSample.__dataclass_fields__, 1.0)
    return OurSample(**{**base, **changed})


def test_guestfish_grows_checks_and_edits_in_one_session() -> None:
    lines = render_guestfish(EDITS, disk_size=GIB4).splitlines()
    assert lines.count("run") == 1
    order = [
        next(n for n, line in enumerate(lines) if line.startswith(word))
        for word in ("part-expand-gpt", "part-resize", "e2fsck-f", "resize2fs", "mount", "umount")
    ]
    assert order == sorted(order)
    script = "\n".join(lines)
    for place in (*PLACES, "/etc/hostname", "/etc/shadow", "authorized_keys"):
        assert place in script, place
    assert "chown 33 4 /srv/demo/welcome" in lines and "chmod 0640 /srv/demo/welcome" in lines


def test_virt_customize_makes_the_same_edits() -> None:
    words = plan_virt_customize(EDITS)
    joined = " ".join(words)
    for place in PLACES:
        assert place in joined, place
    for option in ("--hostname", "--root-password", "--ssh-inject", "--no-network"):
        assert option in words


def test_the_password_is_on_no_peers_command_line() -> None:
    assert ORDER.password not in render_guestfish(EDITS, disk_size=GIB4)
    assert ORDER.password not in shlex.join(plan_virt_customize(EDITS))


def test_the_root_ends_before_the_backup_table() -> None:
    assert root_end_sector(GIB4) == GIB4 // 512 - 2048 - 1


def test_guestfish_words_are_quoted() -> None:
    assert quote_guestfish('a "b"\n\\c\t') == '"a \\"b\\"\\n\\\\c\\t"'


def test_the_root_is_the_largest_partition_whatever_its_number() -> None:
    table = {"partitiontable": {"partitions": [{"start": 2048, "size": 6144}, {"start": 8192, "size": 8000000}]}}
    assert find_root_start(json.dumps(table).encode()) == 8192


def test_the_median_counts_and_every_sample_is_kept() -> None:
    figures = summarise(
        [ours(helper_s=3.0), ours(helper_s=9.0), ours(helper_s=4.0)],
        {"libguestfs": [Sample(wall_s=8.0, cpu_s=7.0), Sample(wall_s=10.0, cpu_s=7.5)]},
        accel="tcg",
    )
    assert figures["helper_s"] == 4.0 and figures["libguestfs_s"] == 9.0 and figures["libguestfs_cpu_s"] == 7.25
    assert figures["accel"] == "tcg" and figures["rounds"] == 3
    assert isinstance(figures["samples"], dict) and figures["samples"]["helper_s"] == [3.0, 9.0, 4.0]
    json.dumps(figures)


def test_the_keys_that_are_reported_are_there() -> None:
    theirs = {name: [Sample(wall_s=1.0, cpu_s=1.0)] for name in ("libguestfs", "virt_customize", "virt_resize")}
    wanted = {"deploy_s", "copy_s", "helper_s", "helper_boot_s", "login_s", "accel", "host_peak_rss_MiB"}
    wanted |= {"libguestfs_s", "virt_customize_s", "virt_resize_s"}
    assert wanted <= set(summarise([ours()], theirs, accel="kvm"))


def test_the_table_shows_how_many_times_ours_a_peer_takes() -> None:
    figures = summarise(
        [ours(helper_s=4.0, helper_cpu_s=4.0)], {"libguestfs": [Sample(wall_s=10.0, cpu_s=9.0)]}, accel="tcg"
    )
    rows = comparison_table(figures)
    assert rows[2] == ("guestfish: the same, one session", "10.0 s", "9.0 s", "2.5")
    assert len(rows) == 3, "a peer that was not measured is not shown"
