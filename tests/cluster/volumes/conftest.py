"""Three nodes: first with volumes in a directory that they share, then in a Ceph, as `./lab up --storage` makes it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from snf_lab.lab import Lab

from tests.cluster.volumes import site as sites
from tests.cluster.volumes.quiet_linux import make_initrd
from tests.cluster.volumes.site import Site

#: In the default run, on a directory; the others, and all on Ceph, are for `./lab test volumes`.
SHORT = (
    "test_no_write_is_lost_by_migration_growth_and_a_power_cut",
    "test_a_node_that_is_taken_over_from_writes_no_more_though_it_lives",
    "test_a_disk_is_added_to_a_running_instance_and_taken_away",
    "test_a_snapshot_of_a_running_instance_is_an_image_at_once",
    "test_a_disk_that_is_a_clone_of_its_image_is_customised_and_not_copied",
    "test_an_image_that_is_not_in_the_store_is_refused_before_anything_is_made",
    "test_bad_input_is_told_and_makes_nothing",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        engine = getattr(getattr(item, "callspec", None), "params", {}).get("site")
        if engine == "rados" or (engine == "directory" and getattr(item, "originalname", "") not in SHORT):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session", params=["directory", "rados"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    lab = Lab.open()
    if lab.config is None or len(lab.nodes) < 3 or lab.config.storage != request.param:
        lab.ensure_up(nodes=3, storage=request.param, release=lab.config.release if lab.config else "bookworm")
    assert lab.config is not None and lab.config.storage == request.param, "a lab with a Ceph does not lose it again"
    image, initrd = sites.counting_image(lab.state.images), make_initrd(lab.state.images)
    sites.register(lab.master, image)
    yield Site(lab, request.param)
    image.unlink()
    initrd.unlink()


@pytest.fixture
def name(site: Site) -> Iterator[str]:
    """A fresh instance name; the instance is removed afterwards if it came to be, and all of its volumes with it."""
    before = site.volumes()
    fresh = f"v-{uuid.uuid4().hex[:8]}"
    yield fresh
    if fresh in site.instances():
        site.remove(fresh)
        assert site.volumes() == before, "removing the instance left volumes behind"
