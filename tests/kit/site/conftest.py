"""Small sites, and a browser for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.goods import Goods
from tests.site import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")  # no longer: while it is open, this thread has an event loop that other tests trip over
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def built_site(goods: Goods, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of the small bundle.  Tests must not change it."""
    from edgekit.site import build_site

    folder = tmp_path_factory.mktemp("site") / "site"
    build_site(goods.bundle, folder)
    return folder


@pytest.fixture
def site(built_site: Path, tmp_path: Path) -> Path:
    """The same, for a test that may change it."""
    return Path(shutil.copytree(built_site, tmp_path / "site"))
