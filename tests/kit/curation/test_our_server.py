"""Our own service as the teacher: the real model, held to the form of rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.cli.program import main
from edgekit.data import load_rows
from tests.kit.curation.rows import pair, write
from tests.kit.curation.test_generate import SCHEMA
from tests.service import serving

pytestmark = pytest.mark.model


def test_it_writes_rows_and_labels_prompts_that_keep_to_the_schema(demo_bundle: Path, tmp_path: Path) -> None:
    kinds = ("scratch", "dent", "burr", "stain")
    seeds = write(tmp_path / "seeds.jsonl", [pair(f"A {kind} on the flange.", {"verdict": "scrap"}) for kind in kinds])
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": f"Scratch of {n} mm."} for n in range(2)])
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA | {"additionalProperties": False}))
    more, labelled = tmp_path / "more.jsonl", tmp_path / "labelled.jsonl"
    with serving(demo_bundle) as service:
        teacher = ["--endpoint", f"{service.url}/v1", "--model", "base", "--concurrency", "2", "--max-tokens", "60"]
        words = ["generate", seeds, "--output", more, "--rows", 1, "--temperature", 1, "--vary", "place: edge, rib"]
        assert main(["data", *map(str, words), "--schema", str(schema), *teacher]) == 0
        words = ["label", prompts, "--output", labelled]
        assert main(["data", *map(str, words), "--schema", str(schema), *teacher]) == 0
    rows = [load_rows(more), load_rows(labelled)]
    assert list(map(len, rows)) == [1, 2]
    for row in (*rows[0], *rows[1]):
        assert json.loads(row.answer)["verdict"] in ("accept", "scrap")
    told = [json.loads(line)["provenance"] for path in (more, labelled) for line in path.read_text().splitlines()]
    assert all(each["tokens"] > 0 for each in told)
