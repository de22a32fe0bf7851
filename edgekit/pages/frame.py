"""The frame of a page: its templates, its style, and the policy that lets nothing else in."""

from __future__ import annotations

import base64
import functools
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from edgekit.pages.signs import visible

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class PageFrame:
    """Templates of one package, all of which escape what they are given; ``visible`` is a filter of theirs."""

    templates: Environment

    def render(self, name: str, **given: Any) -> str:
        """The HTML of template ``name``, which gets ``style`` and ``policy`` besides what is ``given``."""
        style = _style()
        return self.templates.get_template(name).render(style=style, policy=_policy(style), **given)


@functools.cache
def page_frame(package: str) -> PageFrame:
    """The frame of pages whose templates lie in ``templates`` of ``package``, beside those that all pages have."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("edgekit.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["visible"] = visible
    return PageFrame(made)


def _style() -> str:
    return "\n" + files("edgekit.pages").joinpath("page.css").read_text(encoding="utf-8")


def _policy(style: str) -> str:
    """Nothing but this style: no script runs and nothing is fetched, whatever stands in a row or an answer."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
