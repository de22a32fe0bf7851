"""`auto`: from a project file over the export to answers of the adapter that a request is for."""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM

from edgekit.cli.program import main
from edgekit.data import load_rows
from edgekit.evaluation.through_auto import evaluate_through_auto
from edgekit.exporting.export import export
from edgekit.project import load_project
from edgekit.routing.proof import prove_router
from edgekit_runtime import Runtime
from edgekit_runtime.cli import main as runtime_main
from edgekit_runtime.engines.llama.token_rows import TokenRows
from edgekit_runtime.errors import ContextExceeded, InputError, NobodyAnswers, UsageError
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.manifest import Manifest
from edgekit_runtime.formats.route import user_text
from edgekit_runtime.server.refusals import refusal_of
from tests.adapters import save_random_lora
from tests.service import Service, serving

WORDS = {
    "metal": ("scratch", "bracket", "burr", "housing", "dent", "weld"),
    "orders": ("parcel", "refund", "invoice", "delivery", "return", "receipt"),
    "herbs": ("basil", "thyme", "watering", "seedling", "compost", "pot"),
}
ASKED = {"metal": "the bracket and scratch and burr", "orders": "the refund and parcel and invoice"}
LATE = "the basil and seedling and compost"
NOBODY = "What is the capital of Norway?"


def _write(folder: Path, **more: Any) -> Path:
    document = {
        "project": "choosing",
        "base": more.pop("base"),
        "adapters": {
            name: {"path": f"made/{name}", "data": {"train": f"{name}.jsonl", "eval": f"{name}-eval.jsonl"}}
            for name in WORDS
        },
        "gate": {"min_gain": -100, "rows": 2, "max_mean_kl": 1},
        "export": {"quantize": "Q8_0"},
    } | more
    with (folder / "edgekit.yaml").open("w") as file:
        YAML().dump(document, file)
    return folder


@pytest.fixture(scope="module")
def project(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("auto")
    torch.manual_seed(0)
    drawn = random.Random(0)
    for name, words in WORDS.items():
        model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
        save_random_lora(model, folder / "made" / name, std=0.1, r=2, lora_alpha=8, target_modules=["v_proj"])
        for part, count in (("", 60), ("-eval", 12)):
            texts = [f"the {' and '.join(drawn.sample(words, 3))} {drawn.randrange(99)}" for _ in range(count)]
            rows = [json.dumps({"prompt": text, "completion": name}) for text in texts]
            (folder / f"{name}{part}.jsonl").write_text("\n".join(rows))
    return _write(folder, base=str(tiny_chat_base), auto={})


@pytest.fixture(scope="module")
def whole(project: Path) -> tuple[Path, Manifest]:
    """The bundle of all three adapters."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = export(load_project(project), output=project / "whole", accept_loss="random weights")
    torch.set_num_threads(threads)
    return made


@pytest.fixture(scope="module")
def late(whole: tuple[Path, Manifest]) -> Path:
    """The file of the adapter that is not in the other bundle."""
    return whole[0] / whole[1].adapter("herbs").file


@pytest.fixture(scope="module")
def bundle(whole: tuple[Path, Manifest], late: Path) -> Path:
    """One of two adapters: the third comes later."""
    folder, manifest = whole
    made = folder.with_name("bundle")
    shutil.copytree(folder, made)
    (made / late.relative_to(folder)).unlink()
    _change(
        made,
        adapters=tuple(each for each in manifest.adapters if each.name != "herbs"),
        files=tuple(each for each in manifest.files if folder / each.path != late),
    )
    return made


def _change(folder: Path, **fields: Any) -> None:
    path = folder / "manifest.json"
    path.write_bytes(replace(Manifest.parse(path.read_bytes(), where="it"), **fields).dump())


@pytest.fixture(scope="module")
def service(bundle: Path) -> Any:
    with serving(bundle) as made:
        yield made


def test_the_adapter_whose_rows_a_text_is_like_answers(bundle: Path) -> None:
    with Runtime(bundle) as runtime:
        assert runtime.manifest.auto == {"fallback": "base"}
        for name, text in ASKED.items():
            answer = runtime.generate(text, adapter="auto", max_tokens=4)
            assert answer.adapter == name
            assert answer.route is not None
            assert 0.5 < answer.route.confidence <= 1
            assert answer.as_dict()["route"]["adapter"] == name
            assert answer.text == runtime.generate(text, adapter=name, max_tokens=4).text
            messages = [{"role": "user", "content": text}]
            assert runtime.encode(messages, "auto").tokens == runtime.encode(messages, name).tokens
            assert runtime.count_tokens(messages, adapter="auto") == runtime.count_tokens(messages, adapter=name)
        other = runtime.generate(NOBODY, adapter="auto", max_tokens=2)
        assert other.adapter is None
        assert other.route is not None
        assert other.route.fallback
        assert "route" not in runtime.generate(NOBODY, max_tokens=2).as_dict()
        raw = runtime.generate(raw=runtime.prompt_tokens(ASKED["metal"]), adapter="auto", max_tokens=2)
        assert raw.adapter == "metal"
        with pytest.raises(ContextExceeded):
            runtime.generate(raw=[5] * 10**6, adapter="auto")
        with pytest.raises(UsageError, match="lora names some"):
            runtime.generate(NOBODY, adapter="auto", lora={"metal": 1.0})
        with pytest.raises(InputError, match="auto chooses an adapter for answers alone"):
            runtime.embed("a text", "auto")
        begun = [{"role": "user", "content": ASKED["metal"]}, {"role": "assistant", "content": "rework"}]
        messages = [*begun, {"role": "user", "content": "and now?"}]
        assert runtime.generate(messages=messages, adapter="auto", max_tokens=2).adapter == "metal"


def test_the_proof_has_a_table_of_who_gets_what(whole: tuple[Path, Manifest]) -> None:
    folder, manifest = whole
    found = manifest.quality["auto"]
    assert {name: each["rows"] for name, each in found["adapters"].items()} == dict.fromkeys(WORDS, 12)
    assert all(sum(each["chosen"].values()) == each["rows"] for each in found["adapters"].values())
    assert found["right"] > 90
    assert found["unseen"]["rows"] > 300
    assert found["unseen"]["fallback"] > 80
    report = (folder / "report/report.md").read_text()
    assert "Who answers requests for auto" in report
    assert "Who answers requests for auto" in (folder / "report/report.html").read_text()
    assert json.loads((folder / "report/report.json").read_text())["quality"]["auto"] == found


def test_an_adapter_that_comes_later_joins_and_one_that_goes_leaves(bundle: Path, late: Path) -> None:
    with Runtime(bundle) as runtime:
        assert runtime.route(LATE).fallback
        runtime.add_adapter(late)
        assert runtime.route(LATE).adapter == "herbs"
        assert runtime.route(ASKED["metal"]).adapter == "metal"
        runtime.remove_adapter("metal")
        assert runtime.route(ASKED["metal"]).adapter != "metal"
        for name in ("orders", "herbs"):
            runtime.remove_adapter(name)
        with pytest.raises(InputError, match="no adapter of choosing says what it is for"):
            runtime.route(LATE)


def test_a_store_keeps_heads_and_the_fallback(
    bundle: Path, late: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "store")
    assert runtime_main(["adapters", "install", str(bundle), "--store", place]) == 0
    assert runtime_main(["adapters", "install", str(late), "--store", place]) == 0
    asked = ["run", "--store", place, "--adapter", "auto", "--max-tokens", "2", "--json"]
    capfd.readouterr()
    assert runtime_main([*asked, "--prompt", LATE]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["route"]["adapter"] == "herbs"
    assert "auto: herbs answers" in err


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": ASKED["metal"]}]}),
        ("/v1/completions", {"prompt": ASKED["metal"]}),
        ("/v1/responses", {"input": ASKED["metal"]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": ASKED["metal"]}]}),
        ("/api/chat", {"messages": [{"role": "user", "content": ASKED["metal"]}]}),
        ("/api/generate", {"prompt": ASKED["metal"]}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_every_protocol_says_who_answers(service: Service, path: str, body: dict[str, Any], stream: bool) -> None:
    limit: dict[str, Any] = {"options": {"num_predict": 4}} if path.startswith("/api/") else {"max_tokens": 4}
    if "responses" in path:
        limit = {"max_output_tokens": 16}
    found = service.http.post(path, json={"model": "auto", "stream": stream} | body | limit)
    assert found.status_code == 200, found.text
    named = "metal:latest" if path.startswith("/api/") else "metal"
    assert f'"model":"{named}"' in found.text.replace('": "', '":"')
    assert '"adapter":"metal"' in found.text.replace('": "', '":"')
    assert found.headers["x-edgekit-route"].startswith("metal; confidence=0.")


def test_the_service_counts_lists_and_refuses(service: Service) -> None:
    messages = [{"role": "user", "content": ASKED["metal"]}]
    counted = [
        service.http.post("/v1/messages/count_tokens", json={"model": model, "messages": messages}).json()
        for model in ("auto", "metal")
    ]
    assert counted[0] == counted[1]
    tokens = service.http.post("/tokenize", json={"model": "auto", "messages": messages})
    assert tokens.status_code == 200, tokens.text
    assert "auto" in [card["id"] for card in service.http.get("/v1/models").json()["data"]]
    assert service.http.get("/v1/models/auto").json()["id"] == "auto"
    tagged = {each["name"]: each for each in service.http.get("/api/tags").json()["models"]}
    assert len({each["digest"] for each in tagged.values()}) == len(tagged) == 4
    assert "auto:latest" in tagged
    shown = service.http.post("/api/show", json={"model": "auto:latest"})
    assert (shown.status_code, "completion" in shown.json()["capabilities"]) == (200, True)
    vectors = service.http.post("/v1/embeddings", json={"model": "auto", "input": "a"})
    assert (vectors.status_code, "can't be compared" in vectors.text) == (400, True)
    several = service.http.post("/v1/completions", json={"model": "auto", "prompt": ["a", "b"]})
    assert (several.status_code, "one prompt at a time" in several.text) == (400, True)
    both = service.http.post("/v1/completions", json={"model": "auto", "prompt": "a", "n": 2, "max_tokens": 2})
    assert both.status_code == 200, both.text
    other = service.chat(model="auto", messages=[{"role": "user", "content": NOBODY}])
    assert other.json()["model"] == "base"
    assert other.headers["x-edgekit-route"].endswith("; fallback")
    assert 'model="metal"' in service.http.get("/metrics").text


def test_a_bundle_may_refuse_or_name_who_answers_the_rest(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(bundle, folder)
    _change(folder, auto={"fallback": "refuse"})
    with Runtime(folder) as runtime, pytest.raises(NobodyAnswers, match="for none of the adapters") as refused:
        runtime.generate(NOBODY, adapter="auto")
    told = refusal_of(refused.value)
    assert told is not None
    assert (told.status, told.code) == (404, "no_adapter_for_this")
    _change(folder, auto={"fallback": "orders"})
    with Runtime(folder) as runtime:
        answer = runtime.generate(NOBODY, adapter="auto", max_tokens=2)
        assert (answer.adapter, answer.route and answer.route.fallback) == ("orders", True)
        proof = prove_router(runtime, {"orders": [NOBODY, ASKED["orders"]], "metal": [NOBODY, ASKED["metal"]]})
        assert proof["adapters"]["orders"]["chosen"] == {"the fallback": 1, "orders": 1}
        assert {name: each["right"] for name, each in proof["adapters"].items()} == {"orders": 100, "metal": 50}
        runtime.remove_adapter("orders")
        with pytest.raises(InputError, match="no adapter 'orders'") as gone:
            runtime.generate(NOBODY, adapter="auto")
        assert gone.value.hint == "install orders again, or name an adapter or base"
    for wrong in ({}, {"fallback": 3}, {"fallback": "nobody"}):
        text = replace(Manifest.parse((bundle / "manifest.json").read_bytes(), where="it"), auto=wrong).dump()
        with pytest.raises(InputError, match=r"auto\.fallback"):
            Manifest.parse(text, where="it")


def test_token_rows_are_those_of_ggufs_reference(bundle: Path) -> None:
    import gguf

    path = bundle / "base/model.gguf"
    rows_of = read_gguf(path)
    rows = TokenRows(rows_of)
    tensor = rows_of.tensors["token_embd.weight"]
    assert tensor.type_name == "Q8_0"
    data = np.fromfile(path, np.uint8, tensor.size, offset=tensor.offset).reshape(tensor.shape[1], -1)
    expected = gguf.dequantize(data[[5, 0, 77]], gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_allclose(rows.rows([5, 0, 77]), expected, rtol=1e-5, atol=1e-7)
    assert np.linalg.norm(rows.feature([5, 77])) == pytest.approx(1, abs=1e-5)
    assert not rows.feature([]).any()
    assert not rows.feature([10**9]).any()


@pytest.mark.parametrize(
    ("auto", "said"),
    [
        ({"fallback": "metl"}, "'metl' answers nothing"),
        ({"otherwise": "base"}, "auto"),
        ({"fallback": 3}, "auto"),
    ],
)
def test_a_project_file_with_an_impossible_fallback_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], auto: dict[str, Any], said: str
) -> None:
    _write(tmp_path, base="smollm2-135m", auto=auto)
    assert main(["export", "--project", str(tmp_path)]) == 3
    assert said in capsys.readouterr().err


def test_auto_needs_rows_and_separate_adapters_and_its_name(
    project: Path, tiny_chat_base: Path, tmp_path: Path
) -> None:
    from edgekit.routing.rows import check_auto

    loaded = load_project(_write(tmp_path, base=str(tiny_chat_base), auto={"fallback": "metal"}))
    with pytest.raises(UsageError, match=r"auto\.fallback metal is not among the exported"):
        check_auto(loaded, [loaded.adapter("orders")])
    (tmp_path / "orders.jsonl").write_text('{"prompt": "a", "completion": "b"}')
    with pytest.raises(InputError, match="auto needs 3 different questions of orders, and there are 1"):
        check_auto(loaded, [loaded.adapter("orders"), loaded.adapter("metal")])
    merged = load_project(_write(tmp_path, base=str(tiny_chat_base), auto={}, export={"mode": "merged"}))
    with pytest.raises(UsageError, match="merged bundle"):
        check_auto(merged, [merged.adapter("orders")])
    twice = {"adapters": {"refuse": {"path": "x", "data": {"eval": "x.jsonl"}}}, "auto": {"fallback": "refuse"}}
    with pytest.raises(InputError, match="also says that nobody answers"):
        load_project(_write(tmp_path, base=str(tiny_chat_base), **twice))
    with pytest.raises(InputError, match="no adapter name"):
        load_project(_write(tmp_path, base=str(tiny_chat_base), adapters={"auto": {"path": "x"}}))


def test_scores_through_auto_are_those_by_name_but_for_rows_that_go_elsewhere(
    project: Path, bundle: Path, tmp_path: Path
) -> None:
    loaded = load_project(project)
    found = evaluate_through_auto(loaded, bundle, limit=4)
    assert [each.adapter for each in found.adapters] == ["metal", "orders"]
    with Runtime(bundle) as runtime:
        for each in found.adapters:
            rows = load_rows(loaded.data_for(each.adapter).eval)[:4]
            assert each.by_name.rows == 4
            assert each.elsewhere == sum(runtime.route(user_text(row.messages)).adapter != each.adapter for row in rows)
            if each.elsewhere == 0:
                assert each.through_auto == each.by_name
    assert found.kept is None or math.isclose(found.kept * found.by_name, found.through_auto)
    strange = _write(tmp_path, base=str(loaded.base), auto={})
    for name in WORDS:
        shutil.copytree(project / "made" / name, strange / "made" / name)
        for part in ("", "-eval"):
            (strange / f"{name}{part}.jsonl").write_text(json.dumps({"prompt": NOBODY, "completion": "Oslo"}) + "\n")
    other = evaluate_through_auto(load_project(strange), bundle, limit=1)
    assert [each.elsewhere for each in other.adapters] == [1, 1]  # the base answers
    refusing = tmp_path / "refusing"
    shutil.copytree(bundle, refusing)
    _change(refusing, auto={"fallback": "refuse"})
    assert [each.through_auto.value for each in evaluate_through_auto(load_project(strange), refusing).adapters] == [
        0,
        0,
    ]
    without = tmp_path / "without"
    shutil.copytree(bundle, without)
    _change(without, auto=None)
    with pytest.raises(InputError, match="has no auto"):
        evaluate_through_auto(loaded, without)


def test_evaluate_asks_auto_on_a_bundle_alone(
    project: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    assert main(["evaluate", "auto"]) == 2
    assert "chooses on the device's engine" in capsys.readouterr().err
    written = tmp_path / "auto.json"
    assert main(["evaluate", "auto", "--artifact", str(bundle), "--limit", "2", "--output", str(written)]) == 0
    assert "through auto" in capsys.readouterr().out
    assert json.loads(written.read_text())["schema"] == "edgekit.through-auto/1"
