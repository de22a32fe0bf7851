"""Small sites, and a browser for them."""

from __future__ import annotations

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


@pytest.fixture
def site(goods: Goods, tmp_path: Path) -> Path:
    """A site of the small bundle that a test may change."""
    from edgekit.site import build_site

    build_site(goods.bundle, tmp_path / "site")
    return tmp_path / "site"
