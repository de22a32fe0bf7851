"""What findings say of layers' names, and what counts as agreement."""

from __future__ import annotations

import numpy as np

from edgekit.bases.probe.compare import distance
from edgekit.bases.probe.findings import Findings


def test_what_is_left_out_fits_no_layer_that_stays() -> None:
    found = Findings(usable=("l.0.a.gate", "l.0.b.proj"), ignored=("l.0.c.gate",), routers=("l.0.d.router",))
    assert found.left_out == ("c.gate", "router")


def test_dead_logits_are_far_from_anything() -> None:
    alive = np.random.default_rng(0).normal(size=(5, 20))
    assert distance(alive, alive).agree
    for dead in (np.full((5, 20), np.nan), np.zeros((5, 20))):
        assert not distance(alive, dead).agree
        assert not distance(dead, dead).agree
