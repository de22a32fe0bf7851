"""Ollama's TEMPLATE beside the base's own chat template, which is the one that counts on devices."""

from __future__ import annotations

from edgekit.importing.ollama.go_syntax import NotKnown
from edgekit.importing.ollama.go_template import prompt_of
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.template import ChatTemplate, TemplateFacts

NOT_READ = "TEMPLATE is not read: the base's own chat template counts"
_QUESTIONS = [{"role": "user", "content": "What is it?"}]
_TURNS = [*_QUESTIONS, {"role": "assistant", "content": "This."}, {"role": "user", "content": "And that?"}]
_BOS = "bos_token"


def template_note(template: str, own: TemplateFacts, system: str | None) -> str | None:
    """What to say of a TEMPLATE.

    Args:
        template: in Go's syntax.
        own: the base's chat template, in jinja.
        system: the model's system prompt.

    Returns:
        None where both write the same prompt.
    """
    if template.strip() in {source.strip() for source in own.sources.values()}:
        return None
    same = _same(template, own, system)
    if same is None:
        return f"{NOT_READ}; see whether both write the same prompt"
    if same:
        return None
    return (
        f"{NOT_READ}, and it writes another prompt; an adapter that was trained with that needs a bundle that is made"
        " with --chat-template FILE, where FILE writes the same in jinja"
    )


def _same(template: str, own: TemplateFacts, system: str | None) -> bool | None:
    """Whether both write the same; None where that can't be told."""
    before = [{"role": "system", "content": system}] if system is not None else []
    bos = own.tokens.get(_BOS) or ""
    try:
        jinja = ChatTemplate.of(own)
        asked = [[*before, *rest] for rest in (_QUESTIONS, _TURNS)]
        return all(
            prompt_of(template, each).removeprefix(bos) == jinja.render(each).removeprefix(bos) for each in asked
        )
    except (NotKnown, InputError):
        return None
