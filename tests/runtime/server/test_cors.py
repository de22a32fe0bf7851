"""Pages of other sites: those that are named may ask, and no others; keys in either header."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_runtime import UsageError
from edgekit_runtime.server.origins import check_origin
from tests.goods import Goods
from tests.service import serving

SITE, OTHER = "https://app.example", "https://other.example"
MODELS, CHAT = "/v1/models", "/v1/chat/completions"


def preflight(origin: str) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }


def test_a_page_of_a_named_site_may_ask(goods: Goods) -> None:
    with serving(goods.bundle, "--cors", SITE, "--cors", "http://localhost:3000") as service:
        for origin in (SITE, "http://localhost:3000"):
            asked = service.http.options(CHAT, headers=preflight(origin))
            assert asked.status_code == 200
            assert asked.headers["access-control-allow-origin"] == origin
            assert "POST" in asked.headers["access-control-allow-methods"]
            assert "authorization" in asked.headers["access-control-allow-headers"]
            answer = service.http.get(MODELS, headers={"Origin": origin})
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            assert "X-Edgekit-Ignored" in answer.headers["access-control-expose-headers"]
        assert service.http.options(CHAT, headers=preflight(OTHER)).status_code == 400
        refused = service.http.get(MODELS, headers={"Origin": OTHER})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
        assert service.http.get(MODELS, headers={"Host": "app.example", "Origin": SITE}).status_code == 403


def test_without_a_list_no_page_of_another_site_may_ask_and_keys_come_in_either_header(
    goods: Goods, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    with serving(goods.bundle, "--api-key-file", str(key)) as service:
        for headers, status in (
            ({"x-api-key": "secret"}, 200),
            ({"Authorization": "Bearer secret"}, 200),
            ({"x-api-key": "Bearer secret"}, 401),
            ({"x-api-key": ""}, 401),
            ({"Authorization": "Bearer wrong", "x-api-key": "wrong"}, 401),
            ({"x-api-key": "ké"}, 401),
        ):
            sent = {name: value.encode() for name, value in headers.items()}
            assert service.http.get(MODELS, headers=sent).status_code == status, headers
        answer = service.http.get(MODELS, headers={"x-api-key": "secret", "Origin": SITE})
        assert "access-control-allow-origin" not in answer.headers
        assert service.http.options(CHAT, headers=preflight(SITE)).status_code == 405


def test_all_sites_are_named_by_a_star_alone(goods: Goods) -> None:
    with serving(goods.bundle, "--cors", "*") as service:
        answer = service.http.get(MODELS, headers={"Origin": OTHER})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert service.http.get(MODELS, headers={"Origin": OTHER, "Host": "app.example"}).status_code == 403


@pytest.mark.parametrize(
    "text", ["", "app.example", "https://app.example/", "ftp://x", "https://", "https://*.example", "https://A.example"]
)
def test_what_is_no_site_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no site"):
        check_origin(text)
