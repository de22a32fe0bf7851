"""The benchmark of a caption bundle."""

from __future__ import annotations

import json

import pytest

from edgekit_runtime.bench import compare, run_bench, table
from edgekit_runtime.bench.images import parse_size
from edgekit_runtime.errors import UsageError
from tests.vlm import Model


def test_ttft_is_split_and_another_adapter_encodes_nothing_again(quantized: Model) -> None:
    document = run_bench(quantized.bundle, quick=True, image_size="60x40")
    assert document["settings"]["image_size"] == "60x40"
    assert [result["adapter"] for result in document["results"]] == ["base", "one", "two"]
    for result in document["results"]:
        new, encode, prefill = (result[f"image_{part}_ms"]["median"] for part in ("ttft", "encode", "prefill"))
        assert encode > 0
        assert prefill > 0
        assert encode + prefill <= new
        assert result["seen_image_encoded"] == 0
        assert result["seen_image_ttft_ms"]["samples"]
    lines = table(document).splitlines()
    heading = next(number for number, line in enumerate(lines) if "encode ms" in line)
    assert [line.split()[0] for line in lines[heading + 2 : heading + 5]] == ["base", "one", "two"]
    assert "encode ms" in compare(document, document)
    without = json.loads(json.dumps(document))  # a text bundle, or a result of before
    for result in without["results"]:
        for key in [key for key in result if "image" in key]:
            del result[key]
    assert "encode ms" not in table(without)
    assert "encode ms" not in compare(document, without)


@pytest.mark.parametrize("text", ["640", "0x10", "10x3000", "10x200", "axb", ""])
def test_sizes_that_no_image_has_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no image size"):
        parse_size(text)
