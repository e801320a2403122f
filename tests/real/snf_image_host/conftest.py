from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.snf_image_host.node import Fake, fake_node, real_helper


@pytest.fixture
def node() -> Iterator[Fake]:
    """A node with a fake QEMU."""
    with fake_node() as made:
        yield made


@pytest.fixture
def real_node() -> Iterator[Fake]:
    """A node with QEMU and the helper VM's image."""
    helper = real_helper()
    if helper is None:
        pytest.skip("there is no image of the helper VM; build one into build/helper, or name one in SNF_HELPER_IMAGE")
    with fake_node(helper=helper) as made:
        yield made
