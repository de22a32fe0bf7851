"""Which adapters answer, after whatever was added, removed and left out."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path

import pytest

from edgekit_runtime.engines import Sampling
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.bundle import Bundle, open_bundle
from edgekit_runtime.formats.manifest import BASE, StackEntry, StackPart
from edgekit_runtime.runtime.asking import Asker
from edgekit_runtime.runtime.catalogue import Catalogue
from edgekit_runtime.runtime.options import Options, SamplingOptions
from tests.goods import Goods


@pytest.fixture
def bundle(goods: Goods) -> Bundle:
    with open_bundle(goods.bundle, verify=False) as opened:
        return opened


def names(catalogue: Catalogue) -> set[str]:
    return {entry.name for entry in catalogue.manifest.adapters}


def test_what_is_left_out_does_not_answer_until_it_is_added_again(bundle: Bundle) -> None:
    first = bundle.manifest.adapters[0]
    catalogue = Catalogue(bundle, {first.digest})
    assert first.name not in names(catalogue)
    with pytest.raises(InputError, match=first.name):
        catalogue.path(first.name)
    catalogue.add(first)
    assert catalogue.name_of(first.name) == first.name


def test_what_was_removed_stays_away_until_the_bundle_changes(bundle: Bundle) -> None:
    catalogue = Catalogue(bundle, ())
    everyone = names(catalogue)
    first = bundle.manifest.adapters[0].name
    catalogue.remove(first)
    assert names(catalogue) == everyone - {first}
    catalogue.follow(bundle, ())
    assert names(catalogue) == everyone


def test_what_was_added_stays_when_the_bundle_changes(bundle: Bundle) -> None:
    catalogue = Catalogue(bundle, ())
    guest = replace(bundle.manifest.adapters[0], name="guest", digest="0" * 64, file="/elsewhere/guest.gguf")
    catalogue.add(guest)
    catalogue.follow(bundle, ())
    assert catalogue.path("guest") == Path("/elsewhere/guest.gguf")


def test_a_default_that_is_gone_is_no_default(bundle: Bundle) -> None:
    first = bundle.manifest.adapters[0]
    named = replace(bundle, manifest=replace(bundle.manifest, default_adapter=first.name))
    catalogue = Catalogue(named, ())
    assert catalogue.name_of(None) == first.name
    catalogue.remove(first.name)
    assert catalogue.name_of(None) is None
    assert catalogue.entry_of(None) is catalogue.manifest.base


def test_a_stack_that_is_the_default_says_what_it_lacks_and_leaves_nothing_to_the_base(bundle: Bundle) -> None:
    first = bundle.manifest.adapters[0]
    stack = StackEntry("both", (StackPart(first.name, 0.5, first.digest),))
    named = replace(bundle, manifest=replace(bundle.manifest, stacks=(stack,), default_adapter="both"))
    catalogue = Catalogue(named, ())
    assert catalogue.name_of(None) == "both"
    catalogue.add(replace(first, digest="0" * 64))
    for name in (None, "both"):
        with pytest.raises(InputError, match=f"the stack both needs {first.name}, which is another one now"):
            catalogue.name_of(name)
    catalogue.add(replace(first, name="both", digest="1" * 64))  # an adapter that comes under its name
    assert catalogue.name_of(None) == "both"


def test_a_stack_has_digests_and_scales_and_nothing_at_zero(bundle: Bundle) -> None:
    catalogue = Catalogue(bundle, ())
    first = bundle.manifest.adapters[0]
    assert catalogue.stack(None) == ((), {})
    assert catalogue.stack(first.name) == (((first.digest, 1.0),), {first.digest: catalogue.path(first.name)})
    assert catalogue.stack(None, {first.name: 0.0}) == ((), {})
    with pytest.raises(InputError, match="scale of 3"):
        catalogue.stack(None, {first.name: 3.0})
    assert catalogue.name_of(BASE) is None


def test_the_typed_options_are_all_that_a_request_takes() -> None:
    taken = set(inspect.signature(Asker.work).parameters) - {"self", "prompt", "sampling"}
    sampling = set(SamplingOptions.__annotations__)
    assert sampling <= {each.name for each in fields(Sampling)}
    assert not sampling & taken
    assert set(Options.__annotations__) == taken | sampling
