"""docs/api.md is what the code says."""

from __future__ import annotations

from pathlib import Path

from starlette.routing import Route

from edgekit_runtime.formats.bundle import open_bundle
from edgekit_runtime.server.adapters import Adapters
from edgekit_runtime.server.app import PAGE_FILES, make_app
from edgekit_runtime.server.copies import private_place
from edgekit_runtime.server.reference import ROUTES, reference
from edgekit_runtime.server.supervisor import Supervisor
from tests.goods import Goods

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "make docs-commands writes it"


def test_every_path_is_on_it(goods: Goods) -> None:
    with open_bundle(goods.bundle) as bundle, private_place(None) as folder:
        supervisor = Supervisor({})
        app = make_app(supervisor, Adapters(supervisor, bundle, folder=folder))
        paths = {route.path for route in app.routes if isinstance(route, Route)}
    assert paths - PAGE_FILES.keys() == ROUTES.keys() - {"/"}
