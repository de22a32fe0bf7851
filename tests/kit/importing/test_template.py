"""Ollama's TEMPLATEs: the common ones are rendered, whatever else is refused, and no text crashes it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.importing.ollama.go_syntax import NotKnown
from edgekit.importing.ollama.go_template import prompt_of
from edgekit.importing.ollama.template import template_note
from edgekit_runtime.prompts.template import TemplateFacts

SYSTEM, ASK = {"role": "system", "content": "S"}, {"role": "user", "content": "Q"}
TURNS = [SYSTEM, ASK, {"role": "assistant", "content": "A"}, {"role": "user", "content": "R"}]
CHATML = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
CHATML_TURNS = f"{CHATML}A<|im_end|>\n<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n"
BY_TURNS = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"""
BY_LOOP = """{{- $n := len .Messages }}{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- /* one message */ -}}
{{- if or (eq .Role "user") (eq .Role "system") (eq .Role "assistant") -}}
<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}"""
WITH_VARIABLE = """{{- $system := "" }}{{- range .Messages }}
{{- if eq .Role "system" }}{{ $system = printf "%s%s" $system .Content }}{{ continue }}{{ end }}
{{- if $system }}<{{ $system }}>{{ $system = "" }}{{ end }}{{ .Role }}:{{ .Content }};
{{- else }}none{{ end }}"""
JINJA = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("template", [BY_TURNS, BY_LOOP])
def test_a_prompt_is_that_of_ollama(template: str) -> None:
    assert prompt_of(template, TURNS[:2]) == CHATML
    assert prompt_of(template, TURNS) == CHATML_TURNS


def test_variables_live_in_their_blocks() -> None:
    assert prompt_of(WITH_VARIABLE, TURNS) == "<S>user:Q;assistant:A;user:R;"
    assert prompt_of("{{ $a := .Prompt }}{{ if .Prompt }}{{ $a := .System }}{{ end }}{{ $a }}|", TURNS[:2]) == "Q|"


def test_an_answer_s_place_is_the_end_and_is_appended_where_there_is_none() -> None:
    assert prompt_of("{{ .Prompt }}:{{ .Response }}<end>", TURNS) == "Q:A<end>R:"
    assert prompt_of("{{ .Prompt }}:{{ if .Response }} {{ .Response }}{{ end }}<end>", [ASK]) == "Q:"
    assert prompt_of("{{ .Prompt }}:", TURNS) == "Q:AR:"


@pytest.mark.parametrize(
    "template",
    [
        "{{ .Prompt",
        "{{ end }}",
        "{{ if .Prompt }}",
        "{{ else }}",
        "{{ }}",
        "{{ .Prompt | upper }}",
        "{{ with .Prompt }}{{ . }}{{ end }}",
        '{{ template "x" }}',
        "{{ $x }}",
        "{{ $x = 1 }}",
        "{{ break }}",
        "{{ .Prompt.Length }}",
        "{{ range .Prompt }}{{ end }}",
        "{{ len 1 }}",
        '{{ printf "%d" 1 }}',
        "{{ eq .Prompt .System }}",
        "{{ (.Prompt }}",
        "{{ .Prompt }}" * 2002,
        "{{ if .Prompt }}" * 1500 + "{{ end }}" * 1500,
    ],
)
def test_what_is_not_known_is_not_guessed(template: str) -> None:
    with pytest.raises(NotKnown):
        prompt_of(template, TURNS)


PIECES = st.sampled_from(
    [
        "{{",
        "}}",
        "{{-",
        "-}}",
        "if",
        "else",
        "end",
        "range",
        ".Messages",
        ".Prompt",
        "$",
        "$i",
        ":=",
        "=",
        ",",
        "(",
        ")",
        "eq",
        "len",
        "slice",
        "1",
        ".",
        "not",
        "and",
        "text",
        "/*",
        "*/",
        "break",
    ]
)
ACTIONS = st.sampled_from(
    ["{{ if .Prompt }}", "{{ end }}", "{{ range .Messages }}", "{{ .Content }}", "{{ else }}", "x"]
)


@settings(max_examples=400)
@given(
    st.lists(PIECES | st.sampled_from([" ", '"x"', "\n", "printf", '"%s"']), max_size=14).map(" ".join)
    | st.lists(ACTIONS, max_size=10).map("".join)
    | st.text()
)
def test_any_text_is_rendered_or_not_known(template: str) -> None:
    try:
        assert isinstance(prompt_of(template, TURNS), str)
    except NotKnown:
        pass


def test_the_note_says_whether_prompts_are_the_same() -> None:
    own = TemplateFacts.of(JINJA, {"bos_token": "<s>"})
    assert template_note(BY_TURNS, own, "S") is None
    assert template_note(BY_LOOP, own, None) is None
    assert template_note(f"{JINJA}\n", own, None) is None  # its own, in jinja
    other = template_note("### {{ .Prompt }}", own, None)
    assert other is not None
    assert "another prompt" in other
    unknown = template_note("{{ .Prompt | upper }}", own, None)
    assert unknown is not None
    assert "see whether" in unknown
