"""Small sites, and a browser for them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekit.site import assets
from tests.goods import Goods
from tests.site import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

AXE = assets.Package(
    name="axe-core",
    version="4.14.1",
    sha512="FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    license="MPL-2.0",
    folder="axe",
    files={},
)


@pytest.fixture(scope="module")  # no longer: while it is open, this thread has an event loop that other tests trip over
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def site(goods: Goods, tmp_path: Path) -> Path:
    """A site of the small bundle that a test may change."""
    from edgekit.site import build_site

    build_site(goods.bundle, tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture(scope="session")
def axe() -> str:
    """The checker's code, fetched as a site's parts are."""
    with tarfile.open(fileobj=BytesIO(assets.package_bytes(AXE)), mode="r:gz") as tar:
        stream = tar.extractfile("package/axe.min.js")
        assert stream is not None
        return stream.read().decode()
