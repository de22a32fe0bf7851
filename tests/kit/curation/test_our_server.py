"""Our own service as the teacher: the real model, held to the form of rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.cli.program import main
from edgekit.data import load_rows
from tests.kit.curation.rows import pair, write
from tests.kit.curation.test_generate import SCHEMA
from tests.kit.curation.test_split import different
from tests.service import serving

pytestmark = pytest.mark.model


def test_it_writes_rows_and_labels_prompts_that_keep_to_the_schema(demo_bundle: Path, tmp_path: Path) -> None:
    seeds = write(tmp_path / "seeds.jsonl", [pair(different(n), {"verdict": "scrap"}) for n in range(4)])
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": f"Scratch of {n} mm."} for n in range(2)])
    schema = tmp_path / "schema.json"
    bounded = {"type": "string", "maxLength": 40}
    schema.write_text(json.dumps(SCHEMA | {"additionalProperties": False}))
    free = tmp_path / "free.json"
    free.write_text(json.dumps({"type": "object", "properties": {"note": bounded}, "required": ["note"]}))
    with serving(demo_bundle) as service:
        teacher = ["--endpoint", f"{service.url}/v1", "--model", "base", "--concurrency", "2"]
        more, labelled, noted = (tmp_path / f"{name}.jsonl" for name in ("more", "labelled", "noted"))
        words = ["generate", seeds, "--output", more, "--rows", 2, "--minutes", 2, "--max-tokens", 60]
        words += ["--schema", schema, "--shots", 1, "--temperature", 1, "--vary", "place: edge, rib"]
        assert main(["data", *map(str, words), *teacher]) == 0
        words = ["label", prompts, "--output", labelled, "--schema", schema, "--max-tokens", 40]
        assert main(["data", *map(str, words), *teacher]) == 0
        words = ["label", prompts, "--output", noted, "--schema", free, "--max-tokens", 60, "--rows", 1]
        assert main(["data", *map(str, words), *teacher]) == 0
    for row in (*(load_rows(more) if more.stat().st_size else []), *load_rows(labelled)):
        assert json.loads(row.answer)["verdict"] in ("accept", "scrap")
    assert len(load_rows(labelled)) == 2
    told = [json.loads(line)["provenance"] for line in labelled.read_text().splitlines()]
    assert all(each["tokens"] > 0 for each in told)
    assert set(json.loads(load_rows(noted)[0].answer)) == {"note"}
