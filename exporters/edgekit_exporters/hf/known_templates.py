"""Well-known chat formats, for bases that bring none: each as a small template of its own.

A base that only continues text has no turns.  A project gives it some by name (``chat_template: chatml``).  BOS is left
to the tokenizer: it stands before every text where the base was made so, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

EOS = "eos_token"  # the variable that templates have for the end of a text


@dataclass(frozen=True)
class KnownTemplate:
    """A chat format.

    Attributes:
        source: its jinja text.
        tokens: control tokens that it writes; a vocabulary without them would read them letter by letter, and the one
            that ends a turn could not end an answer.
    """

    source: str
    tokens: tuple[str, ...] = ()

    @property
    def needs_eos(self) -> bool:
        """Whether the end of a turn is the tokenizer's own end of a text."""
        return EOS in self.source

    def missing(self, is_token: Callable[[str], bool], *, has_eos: bool) -> list[str]:
        """What a tokenizer lacks for this format.

        Args:
            is_token: whether a text is a token of the vocabulary.
            has_eos: whether the tokenizer has a token for the end of a text.
        """
        lacking = [token for token in self.tokens if not is_token(token)]
        return lacking if has_eos or not self.needs_eos else [*lacking, f"an {EOS}"]


_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
_LLAMA_3 = """\
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{{- message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""
# A format without a turn for the system prompt: it goes before the text of the first user.
_SYSTEM_FIRST = """\
{%- set told = namespace(system='') -%}
{%- if messages[0]['role'] == 'system' -%}
{%- set told.system = messages[0]['content'] -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
"""
_GEMMA = (
    _SYSTEM_FIRST
    + """\
{%- for message in messages -%}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
{{- '<start_of_turn>' + role + '\\n' -}}
{%- if told.system and role == 'user' -%}
{{- told.system | trim + '\\n\\n' -}}{%- set told.system = '' -%}
{%- endif -%}
{{- message['content'] | trim + '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
)
_MISTRAL = (
    _SYSTEM_FIRST
    + """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- ' ' + message['content'] | trim + eos_token -}}
{%- else -%}
{{- '[INST] ' -}}
{%- if told.system -%}{{- told.system | trim + '\\n\\n' -}}{%- set told.system = '' -%}{%- endif -%}
{{- message['content'] | trim + ' [/INST]' -}}
{%- endif -%}
{%- endfor -%}
"""
)
_LLAMA_2 = (
    _SYSTEM_FIRST
    + """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- ' ' + message['content'] | trim + ' ' + eos_token -}}
{%- else -%}
{{- '[INST] ' -}}
{%- if told.system -%}
{{- '<<SYS>>\\n' + told.system | trim + '\\n<</SYS>>\\n\\n' -}}{%- set told.system = '' -%}
{%- endif -%}
{{- message['content'] | trim + ' [/INST]' -}}
{%- endif -%}
{%- endfor -%}
"""
)
_PHI_3 = """\
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""
_ZEPHYR = """\
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""
_ALPACA = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- message['content'] + '\\n\\n' -}}
{%- elif message['role'] == 'assistant' -%}
{{- '### Response:\\n' + message['content'] + eos_token + '\\n\\n' -}}
{%- else -%}
{{- '### Instruction:\\n' + message['content'] + '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Response:\\n' -}}{%- endif -%}
"""
_VICUNA = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- message['content'] + '\\n\\n' -}}
{%- elif message['role'] == 'assistant' -%}
{{- ' ASSISTANT: ' + message['content'] + eos_token -}}
{%- else -%}
{{- 'USER: ' + message['content'] -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ' ASSISTANT:' -}}{%- endif -%}
"""

# Those with tokens of their own first: where a vocabulary has them, nothing in a text can be taken for a turn.
KNOWN_TEMPLATES = {
    "chatml": KnownTemplate(_CHATML, ("<|im_start|>", "<|im_end|>")),
    "llama-3": KnownTemplate(_LLAMA_3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "gemma": KnownTemplate(_GEMMA, ("<start_of_turn>", "<end_of_turn>")),
    "phi-3": KnownTemplate(_PHI_3, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "alpaca": KnownTemplate(_ALPACA),
    "mistral": KnownTemplate(_MISTRAL),
    "llama-2": KnownTemplate(_LLAMA_2),
    "zephyr": KnownTemplate(_ZEPHYR),
    "vicuna": KnownTemplate(_VICUNA),
}


def fitting(is_token: Callable[[str], bool], *, has_eos: bool) -> list[str]:
    """Names of the formats that a tokenizer has all tokens for; see :meth:`KnownTemplate.missing`."""
    return [name for name, each in KNOWN_TEMPLATES.items() if not each.missing(is_token, has_eos=has_eos)]


def advice(names: Sequence[str]) -> str:
    """What to do about a base without a template, when the formats ``names`` fit it."""
    first, *others = names or ["my-template.jinja"]
    also = f"; {', '.join(others)} fit it too" if others else ""
    return f"set `chat_template: {first}` (or a file) in edgekit.yaml{also}"
