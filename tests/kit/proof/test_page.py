"""The page of a proof: what it says, what it marks, and that nothing in it acts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekit.data import Row
from edgekit.examples import inspection
from edgekit.proof.compare import Proof, RowProof, prompt_text
from edgekit.proof.page import page
from edgekit.proof.words import sentence
from tests.browser import needs_chromium
from tests.browser import page as browser_page
from tests.kit.proof.samples import HOSTILE, Sample, json_pairs, json_proof, proof, sample, samples

if TYPE_CHECKING:
    from playwright.sync_api import Page

VOID = {"meta", "img", "line", "rect", "circle", "path", "polyline"}


@pytest.fixture(scope="module")
def all_samples() -> dict[str, Sample]:
    return samples()


class _Reader(HTMLParser):
    """Texts of elements, by class."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == []  # every element ends

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("class") or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.append((" ".join(kind for _, kind in self.open), data))

    def of(self, kind: str) -> list[str]:
        return [" ".join(text.split()) for kinds, text in self.texts if kind in kinds.split()]

    @property
    def text(self) -> str:
        return " ".join(" ".join(text for _, text in self.texts).split())


def _read(each: Sample) -> _Reader:
    return _Reader(page(each.proofs, each.quality, each.figures, each.origin, each.remedy))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("passed", "adapter inspection on base smollm2-135m, exported for llama.cpp at Q4_0, passed: on the device"),
        ("three", "The adapters inspection, monitoring and style on base smollm2-135m, exported for llama.cpp at"),
        ("refused", "were refused: inspection does not answer on the device as it was trained to."),
        ("notgood", "was refused: it does not score more than the bare base beyond chance."),
        ("accepted", "failed the proof and ships all the same: it does not answer on the device as it was trained to."),
        ("merged", "The adapter inspection merged into base smollm2-135m"),
        ("ladder", "exported for llama.cpp at Q4_K_M, passed"),
    ],
)
def test_one_sentence_says_what_is_proven_and_why_not(all_samples: dict[str, Sample], name: str, said: str) -> None:
    each = all_samples[name]
    assert said in sentence(each.quality, each.origin, each.figures)
    assert _read(each).of("lead") == [sentence(each.quality, each.origin, each.figures)]


def test_a_base_whose_blocks_were_made_from_others_is_called_so(all_samples: dict[str, Sample]) -> None:
    each = all_samples["passed"]
    origin = {**each.origin, "base": {**each.origin["base"], "quantization": "Q8_0", "requantized_from": "Q4_K_M"}}
    said = sentence(each.quality, origin, each.figures)
    assert "(Q8_0 made from Q4_K_M: no better than Q4_K_M), passed" in said


def test_a_refused_page_says_every_reason_and_what_helps(all_samples: dict[str, Sample]) -> None:
    shown = _read(all_samples["refused"])
    assert all(reason in shown.text for reason in all_samples["refused"].quality["reasons"])
    assert all_samples["refused"].remedy in shown.text
    assert "Refused" in shown.of("badge")
    assert "trial on line 3 only" in _read(all_samples["accepted"]).text


def test_the_ladder_shows_each_type_and_which_one_this_is(all_samples: dict[str, Sample]) -> None:
    shown = _read(all_samples["ladder"])
    assert {"F16", "Q8_0", "Q4_K_M", "IQ4_NL"} <= set(shown.of("name"))
    assert "Q4_K_M this page" in shown.text
    assert "no: mean KL 0.041 > 0.025" in shown.text


def test_a_device_answer_that_is_right_has_no_mark_where_torch_is_wrong() -> None:
    pairs = json_pairs(inspection, 6)
    right = [answer for _, answer in pairs]
    wrong = [json.dumps(json.loads(answer) | {"verdict": "sing"}) for answer in right]
    shown = _Reader(_page_of(proof("inspection", pairs, wrong, right, right)))
    assert [text for kinds, text in shown.texts if "sing" in text and "wrong" in kinds.split()] == ["sing"] * 6
    assert not [kinds for kinds, _ in shown.texts if "device wrong" in kinds or "device partly" in kinds]
    points = 100 / len(json.loads(right[0]))
    assert shown.of("differs") == [f"device differs: {points:.0f} points more"] * 6
    assert "Where the device differs from the trained model: 6 of 6 rows" in shown.text


def _page_of(*proofs: Proof) -> str:
    each = sample(proofs)
    return page(each.proofs, each.quality, each.figures, each.origin, each.remedy)


def test_every_row_shows_its_prompt_the_expected_answer_and_three_answers(all_samples: dict[str, Sample]) -> None:
    each = all_samples["three"]
    shown = _read(each)
    for row in (row for adapter in each.proofs for row in adapter.rows):
        assert row.where in shown.of("where")
        assert " ".join(row.prompt.split()) in shown.text
    assert shown.text.count("Expected answer") == sum(len(adapter.rows) for adapter in each.proofs)


def test_what_models_say_is_text(all_samples: dict[str, Sample]) -> None:
    html = page(*(getattr(all_samples["three"], name) for name in ("proofs", "quality", "figures", "origin")))
    assert "script" not in _Reader(html).tags
    assert "img" not in _Reader(html).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "\\u202egnp.exe\\u202c" in html
    assert not set("\x1b\x00\u202e\u202c") & set(html)


@pytest.mark.parametrize("field", ["prompt", "reference", "where"])
def test_what_data_says_is_text_too(tmp_path: Path, field: str) -> None:
    each = json_proof("inspection", inspection, 6)
    rows = tuple(replace(row, **{field: f"{HOSTILE} \ud800"}) for row in each.rows)  # type: ignore[arg-type]
    sample([replace(each, rows=rows)]).write(tmp_path)
    shown = _Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in shown.tags
    assert "\\ud800" in shown.text
    assert json.loads((tmp_path / "report.json").read_text())["adapters"][0]["rows"][0][field] == f"{HOSTILE} \ud800"
    assert "<script" not in (tmp_path / "report.md").read_text()
    assert "\x1b" not in (tmp_path / "report.md").read_text()


def test_each_adapter_s_metric_is_told_with_its_score(all_samples: dict[str, Sample]) -> None:
    shown = _read(all_samples["three"])
    assert shown.text.count("Measured is field_accuracy, the share of JSON fields that are right.") == 2
    assert shown.text.count("Measured is token_f1") == 1


def test_a_report_tells_what_of_the_calls_is_right(all_samples: dict[str, Sample], tmp_path: Path) -> None:
    all_samples["tools"].write(tmp_path)
    shown = _Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    _, proof = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["adapters"]
    assert shown.text.count("Measured is tool_accuracy, the share of rows whose calls are right") == 1
    for label in ("Calls right", "Names right", "Arguments right", "Parsable", "False calls", "Text F1"):
        assert label in shown.text
        assert f"* {label}: " in text
    called = sum("<tool_call>" in row["reference"] for row in proof["rows"])
    device, silent = proof["calls"]["device"], len(proof["rows"]) - called
    assert proof["calls"]["base"] == {
        "whole": 0, "names": 0, "arguments": 0, "parsable": 100, "false_calls": 0, "text": pytest.approx(0, abs=30)
    }  # fmt: skip
    assert device["whole"] == pytest.approx(100 * (called - 2) / called)
    assert device["parsable"] == pytest.approx(100 * (called + silent - 1) / (called + silent))
    assert device["false_calls"] == pytest.approx(100 / silent)
    assert proof["torch_score"] > proof["device_score"] > proof["base_score"]
    rows = [line for line in text.splitlines() if line.startswith("| ")][:3]
    assert len({line.count(" | ") for line in rows}) == 1  # the other adapter has no such figures, and its cells


def test_a_page_of_very_many_rows_says_how_many_it_leaves_out() -> None:
    each = json_proof("inspection", inspection, 6)
    shown = _Reader(_page_of(replace(each, rows=each.rows * 50)))
    assert len(shown.of("where")) == 200
    assert "100 more rows are in report.json" in shown.text


def test_figures_that_are_no_numbers_are_called_so() -> None:
    each = json_proof("inspection", inspection, 6)
    bad = dict.fromkeys(("gain", "mean_kl", "device_score", "mcnemar_p", "device_perplexity"), math.nan)
    html = _page_of(replace(each, **bad, gain_interval=(math.nan, math.nan), token_kl=(math.nan,)))  # type: ignore[arg-type]
    assert "no number" in html
    assert not re.search(r"\bnan\b|\binf\b", html.partition("</style>")[2])


def test_rows_of_a_report_from_before_prompts_were_kept_make_a_page() -> None:
    each = json_proof("inspection", inspection, 6)
    old: list[dict[str, Any]] = [
        {key: value for key, value in vars(row).items() if key != "prompt"} for row in each.rows
    ]
    html = _page_of(replace(each, rows=tuple(RowProof(**row) for row in old), free_text=()))
    assert "Expected answer" in html
    assert "<h4>Prompt</h4>" not in html


def test_a_prompt_is_the_question_or_the_conversation() -> None:
    asked = {"role": "user", "content": "what is it?"}
    assert prompt_text(Row((asked,), "", (), "")) == "what is it?"
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look"}}]}
    seen = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "and this?"}]}
    tools = ({"type": "function", "function": {"name": "look"}},)
    text = prompt_text(Row((asked, called, seen), "", (Path("photos/part-1.png"),), "", tools))
    assert text.split("\n\n") == [
        "user: what is it?",
        'assistant: [{"function": {"name": "look"}}]',
        "user: and this?",
        "[image: part-1.png]",
        "[tools: look]",
    ]


@pytest.fixture(scope="module")
def shown(all_samples: dict[str, Sample], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Path]]:
    folder = tmp_path_factory.mktemp("pages")
    for name, each in all_samples.items():
        each.write(folder / name)
    with browser_page(390, 844) as found:
        yield found, folder


@needs_chromium
@pytest.mark.parametrize("name", ["passed", "three", "refused", "notgood", "accepted", "ladder", "merged"])
def test_a_browser_shows_it_from_a_file_without_scrolling_sideways(shown: tuple[Page, Path], name: str) -> None:
    browser, folder = shown
    said: list[str] = []
    asked: list[str] = []
    browser.on("console", lambda message: said.append(message.text))
    browser.on("dialog", lambda dialog: said.append(dialog.message))
    browser.on("request", lambda request: asked.append(request.url))
    address = (folder / name / "report.html").as_uri()
    browser.goto(address)
    browser.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    for width in (320, 390, 1280):
        browser.set_viewport_size({"width": width, "height": 844})
        assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert said == []  # the policy refuses nothing that the page needs
    assert asked == [address]


@needs_chromium
def test_the_page_and_its_plots_follow_the_browser_s_dark_mode(shown: tuple[Page, Path]) -> None:
    browser, folder = shown
    browser.goto((folder / "passed" / "report.html").as_uri())
    colours = {}
    for scheme in ("light", "dark"):
        browser.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        colours[scheme] = browser.evaluate(
            "['body', 'svg text', 'svg rect.device', 'mark'].map((each) => { const style = getComputedStyle("
            "document.querySelector(each)); return style.fill + style.backgroundColor })"
        )
    assert all(light != dark for light, dark in zip(colours["light"], colours["dark"], strict=True))


@needs_chromium
def test_no_script_runs_whatever_stands_in_the_file(shown: tuple[Page, Path], tmp_path: Path) -> None:
    """The policy holds even if a sign of HTML got through."""
    browser, folder = shown
    html = (folder / "passed" / "report.html").read_text(encoding="utf-8")
    broken = html.replace(
        "</body>", "<script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\"></body>"
    )
    assert broken != html
    (tmp_path / "report.html").write_text(broken, encoding="utf-8")
    browser.goto((tmp_path / "report.html").as_uri())
    assert browser.title() == "Proof of line-3: passed"
