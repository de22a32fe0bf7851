"""The model card of an adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from edgekit.project import load_project
from edgekit.training.card import CardScore, add_scores, base_license, write_card
from edgekit.training.record import RunRecord
from edgekit.training.run import train
from edgekit_exporters.base import Base

MakeProject = Callable[..., Path]
SCORE = CardScore("torch, F16", 8, "token_f1", 10.0, 62.5)
RECORD = RunRecord(
    adapter="small",
    base="tiny-chat",
    family="tiny-chat-0123456789ab",
    base_precision="fp32",
    quantization="Q4_0",
    blocks=None,
    template="cd" * 32,
    reasoning=None,
    system="You | inspect.\n```\nparts\n```",
    hyperparameters={
        "rank": 4,
        "alpha": 8,
        "targets": ("q_proj", "v_proj"),
        "max_steps": None,
        "seed": 0,
        "connector": False,
        "rank_pattern": {},
    },
    data={"digest": "ab" * 32, "train_rows": 24, "eval_rows": 4},
    losses=[{"step": 1.0, "loss": 3.0}, {"step": 2.0, "loss": 2.5}, {"step": 2.0, "eval_loss": 2.75}],
    result={},
)


def _base(folder: Path, readme: str | None = None, **known: object) -> Base:
    folder.mkdir(exist_ok=True)
    if readme is not None:
        (folder / "README.md").write_text(readme)
    return replace(Base("owner/tiny", "tiny-000000000000", folder), **known)  # type: ignore[arg-type]


def test_training_leaves_a_filled_card(tiny_project: MakeProject) -> None:
    folder = train(load_project(tiny_project(system="You inspect parts.")))
    text = (folder / "README.md").read_text()
    card = ModelCard(text)  # as the hub reads it
    assert card.data.library_name == "peft"
    assert card.data.base_model is None  # it is a folder of this machine, and the hub knows no such model
    assert card.data.language is None
    assert "[More Information Needed]" not in text
    for fact in (
        "tiny-chat",
        "* training rows: 24",
        "| rank | 4 |",
        "You inspect parts.",
        "](loss.png)",
        "PeftModel",
    ):
        assert fact in text
    assert "after 3 steps" in text


def test_a_hub_base_is_linked_and_gives_its_license(tmp_path: Path) -> None:
    base = _base(tmp_path / "base", "---\nlicense: apache-2.0\nlanguage: en\n---\n# Tiny\n", on_hub=True)
    write_card(tmp_path, RECORD, base, task="text")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.base_model, data.license, data.pipeline_tag) == ("owner/tiny", "apache-2.0", "text-generation")
    assert data.tags == ["lora", "edgekit", "base_model:adapter:owner/tiny"]
    assert data.language is None  # the adapter's rows may have another one
    text = (tmp_path / "README.md").read_text()
    assert 'from_pretrained("owner/tiny")' in text
    assert "2.500 on training rows and 2.750 on evaluation rows" in text
    assert "max steps" not in text
    assert "| seed | 0 |" in text
    assert "connector" not in text
    assert "````text\nYou | inspect.\n```\nparts\n```\n````" in text


@pytest.mark.parametrize(
    "readme",
    [
        None,
        "",
        "# no head",
        "---\n: : [\n---\n",
        "---\n- a\n---\n",
        "---\nlicense: [a, b]\n---\n",
        "---\nlicense:\n---\n",
    ],
)
def test_a_license_that_nobody_tells_is_left_out(tmp_path: Path, readme: str | None) -> None:
    base = _base(tmp_path / "base", readme, on_hub=True)
    assert base_license(base) is None
    write_card(tmp_path, RECORD, base, task="caption")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license is None
    assert "## License" not in card.text


def test_scores_are_filled_in_and_measured_again(tmp_path: Path) -> None:
    write_card(tmp_path, RECORD, _base(tmp_path / "base"), task="text")
    before = (tmp_path / "README.md").read_text()
    assert "Not measured yet" in before
    add_scores(tmp_path, [SCORE, replace(SCORE, answers_of="llama.cpp, Q4_0", base=None)])
    add_scores(tmp_path, [replace(SCORE, adapter=70.0)])
    add_scores(tmp_path, [replace(SCORE, rows=200)])
    text = (tmp_path / "README.md").read_text()
    assert "Not measured yet" not in text
    lines = [line for line in text.splitlines() if line.startswith(("| torch,", "| llama.cpp,"))]
    assert lines == [
        "| torch, F16 | 8 | token f1 | 10.0 | 70.0 |",
        "| llama.cpp, Q4_0 | 8 | token f1 |  | 62.5 |",
        "| torch, F16 | 200 | token f1 | 10.0 | 62.5 |",
    ]
    outside = text.partition("<!-- scores")[0], text.partition("<!-- end of scores -->")[2]
    assert outside == (before.partition("<!-- scores")[0], before.partition("<!-- end of scores -->")[2])


@pytest.mark.parametrize("content", [b"# Somebody's own card\n", b"\xff\xfe", None])
def test_a_card_of_somebody_else_stays(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "README.md"
    if content is not None:
        path.write_bytes(content)
    add_scores(tmp_path, [SCORE])
    assert (path.read_bytes() if path.exists() else None) == content
