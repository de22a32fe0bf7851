"""EleutherAI's evaluation harness: log-likelihoods through the service are transformers', and answers its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgekit_exporters.base import Base
from tests.service import Service

lm_eval = pytest.importorskip("lm_eval", reason="the harness is not installed: pip install 'edgekit[conformance]'")

TASKS = Path(__file__).parent / "tasks"
# Of a log-likelihood of 1 to 7 tokens; the service computes with float16 weights and KV cache, transformers in float32.
CLOSE = 0.02


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tasks, with their rows, and nothing that would be fetched."""
    folder = tmp_path_factory.mktemp("lm-eval")
    for path in TASKS.glob("*.yaml"):
        task = yaml.safe_load(path.read_text())
        task["dataset_kwargs"] = {"data_files": {"test": str(TASKS / "rows.jsonl")}}
        (folder / path.name).write_text(yaml.safe_dump(task))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        patch.setenv("OPENAI_API_KEY", "")
        yield folder


@pytest.fixture(scope="module")
def reference(demo_base: Base) -> Any:
    """The harness's own transformers model, with the weights that the service has: rounded to float16."""
    from lm_eval.models.huggingface import HFLM

    model: Any = AutoModelForCausalLM.from_pretrained(demo_base.folder, dtype=torch.float16).float().eval()
    return HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(demo_base.folder), batch_size=1)


def evaluate(model: Any, tasks: Path, name: str, **arguments: Any) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[name],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        **arguments,
    )
    samples = found["samples"][name]
    return {"samples": sorted(samples, key=lambda each: each["doc_id"]), "scores": found["results"][name]}


def local(service: Service, path: str = "completions", **more: Any) -> dict[str, Any]:
    return {"model": "base", "base_url": f"{service.url}/v1/{path}", "max_length": 1024, "max_retries": 1} | more


def likelihoods(found: dict[str, Any]) -> list[tuple[float, bool]]:
    return [answer[0] for sample in found["samples"] for answer in sample["resps"]]


@pytest.mark.parametrize(
    "options",
    [{"num_concurrent": 4}, {"batch_size": 8}, {"tokenized_requests": False}],
    ids=["at once", "lists", "text"],
)
def test_log_likelihoods_are_those_of_transformers(
    service: Service, tasks: Path, reference: Any, options: dict[str, Any]
) -> None:
    ours = evaluate("local-completions", tasks, "edgekit_choices", model_args=local(service, **options))
    theirs = evaluate(reference, tasks, "edgekit_choices")
    for (one, greedy), (other, expected) in zip(likelihoods(ours), likelihoods(theirs), strict=True):
        assert one < 0
        assert one == pytest.approx(other, abs=CLOSE)
        assert greedy == expected
    assert len(likelihoods(ours)) == 18
    assert ours["scores"] == theirs["scores"]
    assert ours["scores"]["acc,none"] == 1


def test_an_answer_that_ends_at_once_takes_no_score_away(service: Service, reference: Any) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    question = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    asked = [Instance("loglikelihood", {}, (question, "Hi! How can I help you today?"), 0)]
    ((ours, _),) = LocalCompletionsAPI(**local(service)).loglikelihood(asked)
    ((theirs, _),) = reference.loglikelihood(asked)
    assert ours == pytest.approx(theirs, abs=CLOSE)


def test_an_adapter_has_likelihoods_of_its_own(service: Service, tasks: Path) -> None:
    base = evaluate("local-completions", tasks, "edgekit_choices", model_args=local(service))
    one = evaluate("local-completions", tasks, "edgekit_choices", model_args=local(service, model="one"))
    assert likelihoods(one) != likelihoods(base)


def test_perplexity_is_that_of_transformers(service: Service, tasks: Path, reference: Any) -> None:
    ours = evaluate("local-completions", tasks, "edgekit_perplexity", model_args=local(service))
    theirs = evaluate(reference, tasks, "edgekit_perplexity")
    assert ours["scores"]["word_perplexity,none"] == pytest.approx(theirs["scores"]["word_perplexity,none"], rel=5e-3)


def test_answers_are_those_of_transformers(service: Service, tasks: Path, reference: Any) -> None:
    ours = evaluate("local-completions", tasks, "edgekit_writing", model_args=local(service, num_concurrent=4))
    theirs = evaluate(reference, tasks, "edgekit_writing")

    def said(found: dict[str, Any]) -> list[str]:
        return [sample["resps"][0][0] for sample in found["samples"]]

    assert said(ours) == said(theirs)
    assert all(said(ours))


def test_chats_are_asked_as_chats(service: Service, tasks: Path) -> None:
    arguments = local(service, "chat/completions")
    found = evaluate("local-chat-completions", tasks, "edgekit_writing", model_args=arguments, apply_chat_template=True)
    assert all(sample["resps"][0][0] for sample in found["samples"])


def test_the_tokenizer_is_the_service_s_own(service: Service) -> None:
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    model = LocalCompletionsAPI(**local(service))
    assert model.tokenizer_backend == "remote"
    assert model.tokenizer.decode(model.tok_encode("Two plus two")) == "Two plus two"
