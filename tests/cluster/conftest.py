"""The cluster that these tests use: one node, brought up by `./lab test` (or `./lab up`) before they run."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from snf_lab.lab import Lab

from tests.cluster.instances import Cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster(Lab.open().node(1))


@pytest.fixture
def name(cluster: Cluster) -> Iterator[str]:
    """A fresh instance name; the instance is removed afterwards if it came to be."""
    fresh = f"t-{uuid.uuid4().hex[:8]}"
    yield fresh
    if fresh in cluster.instances():
        cluster.remove(fresh)


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> Iterator[str]:
    """The name of a small image that deploys."""
    path = cluster.image("small.raw")
    yield path.name
    path.unlink()
