"""What Ganeti thinks of the OS definition, and what `verify` refuses before anything is made."""

from __future__ import annotations

import pytest

from tests.cluster.instances import Cluster


def test_ganeti_finds_nothing_to_complain_about(cluster: Cluster) -> None:
    diagnosed = cluster.gnt("gnt-os diagnose").text
    ours = diagnosed[diagnosed.index("OS: snf-image") :].split("OS: ")[1]
    assert "[global status: valid]" in ours, diagnosed
    info = cluster.gnt("gnt-os info snf-image").text
    assert "valid: True" in info and "img_id" in info, info


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "img_id"),
        ({"img_id": "small.raw", "img_format": "qcow3"}, "img_format"),
        ({"img_id": "small.raw", "img_properties": "{"}, "img_properties"),
        ({"img_id": "small.raw", "img_properties": '{"COLOUR": "red"}'}, "COLOUR"),
        ({"img_id": "small.raw", "img_properties": '{"EXCLUDE_TASK_Paint": "yes"}'}, "PAINT"),
        ({"img_id": "small.raw", "img_properties": '{"EXCLUDE_ALL_TASKS": "perhaps"}'}, "perhaps"),
        ({"img_id": "small.raw", "img_passwd": "a", "img_passwd_hash": "b"}, "img_passwd_hash"),
        ({"img_id": "small.raw", "img_personality": '[{"path": "/a"}]'}, "contents"),
        ({"img_id": "small.raw", "img_personality": '[{"path": "/../a", "contents": ""}]'}, ".."),
        ({"img_id": "small.raw", "img_checksum": "md5:0"}, "img_checksum"),
        ({"img_id": "file:///etc/../../x"}, "img_id"),
        ({"img_id": "gopher://x/y"}, "gopher"),
    ],
)
def test_what_parameters_alone_can_tell_is_refused_and_nothing_is_made(
    cluster: Cluster, name: str, image: str, parameters: dict[str, str], sentence: str
) -> None:
    added = cluster.add(name, **parameters)
    assert not added.ok
    assert sentence in added.output, added.output
    assert "Traceback" not in added.output
    assert name not in cluster.instances()
    assert not (cluster.node.root / "srv/ganeti/file-storage" / name).exists()


def test_an_unknown_parameter_is_refused(cluster: Cluster, name: str, image: str) -> None:
    added = cluster.add(name, img_id=image, img_colour="red")
    assert not added.ok and "img_colour" in added.output
    assert name not in cluster.instances()
