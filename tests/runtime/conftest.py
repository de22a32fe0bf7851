"""A small real bundle, and adapter files that fit it or don't."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.goods import Goods, make_goods


@pytest.fixture(scope="session")
def goods(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Goods:
    return make_goods(tiny_chat_base, tmp_path_factory.mktemp("goods"))
