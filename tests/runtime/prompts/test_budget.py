"""A chat template is a program from a file: whatever it does, it ends soon, in bounded memory, with one clear line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.cli import main
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.prompts.budget import LONGEST_SOURCE
from edgekit_runtime.prompts.template import KEY_TEMPLATE, ChatTemplate, TemplateFacts, TemplateOverBudget
from edgekit_runtime.runtime import Runtime
from edgekit_runtime.store import Store
from tests.chat_templates import TEMPLATES
from tests.goods import Goods

ROLES = ("user", "assistant")
ASKED = [{"role": "user", "content": "x"}]
BIG = "{% set b = 'ab' * 2000000 %}"
TWICE = "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 60
KEY = "{% set a = (1,) %}" + "{% set a = (a, a) %}" * 60
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}"
NO_END = "{% endfor %}{% endfor %}"
HOSTILE = {
    # time
    "loops": f"{LOOPS}{NO_END}",
    "loops that write": f"{LOOPS}x{NO_END}",
    "loops over a filter": "{% for a in range(99999) %}{{ range(99999) | map('string') | list | length }}{% endfor %}",
    "loops in a test": "{% for a in range(99999) if range(99999) | sum < 0 %}{% endfor %}",
    "sums": "{% for a in range(99999) %}{% set x = range(99999) | sum %}{% endfor %}",
    "steps backwards": "{% for a in range(99999) %}{% set x = range(99999) | reverse | list %}{% endfor %}",
    "comparisons": f"{TWICE}{{{{ a == b }}}}",
    "comparisons in a test": f"{TWICE}{{{{ a is eq(b) }}}}",
    "comparisons in a list": f"{TWICE}{{{{ a in [b] }}}}",
    "comparisons in a sort": f"{TWICE}{{{{ [a, b] | sort }}}}",
    "comparisons in a method": f"{TWICE}{{{{ [a].index(b) }}}}",
    "hashes": f"{KEY}{{{{ {{a: 1}} }}}}",
    "hashes of keys": f"{KEY}{{{{ messages[0][a] }}}}",
    "hashes in a method": f"{KEY}{{{{ messages[0].get(a) }}}}",
    "hashes in a filter": f"{KEY}{{{{ [a] | unique | list }}}}",
    "hashes of dict()": f"{KEY}{{{{ dict([(a, 1)]) }}}}",
    "searches": BIG + "{% set c = 'ba' * 900000 ~ 'c' %}{% for i in range(9999) %}{{ b.rfind(c) }}{% endfor %}",
    "signs to strip": BIG + "{% set c = 'x' * 4000000 ~ 'ab' %}{{ b.strip(c) }}",
    "powers": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "precision": "{{ 5 | round(-1000000000) }}{{ 1.5 | round(1000000000, 'floor') }}",
    "wrapping": BIG + "{{ b | wordwrap(1) }}",
    "addresses": BIG + "{{ b | urlize }}",
    "tags": BIG + "{{ ('<!--' * 900000) | striptags }}",
    # memory and output
    "output": "{% for a in range(99999) %}" + "x" * 10000 + "{% endfor %}",
    "output of a block": "{% set b %}{% for a in range(99999) %}" + "x" * 10000 + "{% endfor %}{% endset %}",
    "output twice": "{% set x = 'ab' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "output of a macro": "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{% set x = 'ab' %}" + "{% set x = m(x) %}" * 60,
    "texts": "{% set x = 'ab' %}" + "{% set x = x + x %}" * 60,
    "texts side by side": "{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 60,
    "texts times": "{{ 'x' * 10000000000 }}",
    "times texts": "{{ 10000000000 * 'x' }}",
    "lists times": "{{ [1] * 1000000000 }}",
    "lists": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "lists kept": "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}"
    "{% set ns.x = [ns.x, range(9999) | list] %}{% endfor %}",
    "slices kept": "{% set b = range(99999) | list %}{% set ns = namespace(x=[]) %}{% for i in range(99999) %}"
    "{% set ns.x = [ns.x, b[1:]] %}{% endfor %}",
    "objects kept": "{% set ns = namespace(x={}) %}{% for i in range(99999) %}"
    "{% set ns.x = {i: ns.x, 'y': range(999) | list} %}{% endfor %}",
    "many names": f"{TWICE}{{{{ a }}}}",
    "many names as text": f"{TWICE}{{{{ a | string }}}}",
    "many names side by side": f"{TWICE}{{{{ a ~ '' }}}}",
    "many names as JSON": f"{TWICE}{{{{ a | tojson }}}}",
    "many names printed": f"{TWICE}{{{{ a | pprint }}}}",
    "many names in a message": f"{TWICE}{{{{ raise_exception(a) }}}}",
    "itself": "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}" + "{% set ns.y = [ns, ns] %}{{ ns.y * 9999999 }}",
    "width": "{{ '%1000000000d' % 1 }}",
    "width from beside": "{{ '%*d' % (1000000000, 1) }}",
    "precision of a number": "{{ '%.1000000000f' % 1 }}",
    "width in a filter": "{{ '%1000000000d' | format(1) }}",
    "width in braces": "{{ '{:1000000000d}'.format(1) }}",
    "width in braces by name": "{{ '{a:1000000000d}'.format(a=1) }}",
    "width in braces of braces": "{{ '{:{}}'.format(1, 1000000000) }}",
    "width in braces of a mapping": "{{ '{a:{b}}'.format_map({'a': 1, 'b': 1000000000}) }}",
    "width of a date": "{{ strftime_now('%1000000000d' * 9999) }}",
    "fields": BIG + "{{ ('%s' * 9999) % ((b,) * 9999) }}",
    "fields in braces": BIG + "{{ ('{0}' * 9999).format(b) }}",
    "fields in a filter": BIG + "{{ ('%(b)s' * 9999) | format(b=b) }}",
    "center": "{{ 'x' | center(1000000000) }}",
    "center()": "{{ 'x'.center(1000000000) }}",
    "zfill()": "{{ 'x'.zfill(1000000000) }}",
    "ljust through attr": "{{ ('x' | attr('ljust'))(1000000000) }}",
    "expandtabs()": "{{ '\\t'.expandtabs(tabsize=1000000000) }}",
    "join()": BIG + "{{ b.join(b) }}",
    "join() of what comes": BIG + "{{ ''.join(range(99999) | map('default', 1, true) | map('replace', '', b)) }}",
    "join": BIG + "{{ range(99999) | join(b) }}",
    "join of what comes": BIG + "{{ messages * 99999 | map('default') | join(b) }}",
    "replace()": BIG + "{{ b.replace('a', b) }}",
    "replace": BIG + "{{ b | replace('a', b) }}",
    "translate()": BIG + "{{ b.translate({97: b}) }}",
    "encode()": "{{ ('x' * 4000000).encode('punycode') }}",
    "to_bytes()": "{{ (1).to_bytes(1000000000, 'big') }}",
    "indent": "{{ ('\n' * 4000000) | indent(1000000000) }}",
    "indent with text": BIG + "{{ ('\n' * 4000000) | indent(b, true, true) }}",
    "tojson": "{{ messages | tojson(indent=1000000000) }}",
    "tojson with text": BIG + "{{ messages | tojson(indent=b) }}{{ messages | tojson(separators=(b, b)) }}",
    "batch": "{{ [1] | batch(1000000000, 0) | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "sum of lists": "{% set x = range(9999) | list %}{{ ([x] * 9999) | sum(start=[]) }}",
    "sort of lowered texts": BIG + "{{ (range(99999) | map('replace', '', b)) | sort | length }}",
    "split()": BIG + "{{ (b * 2).split('a') | length }}",
    "lorem ipsum": "{{ lipsum(n=1000000000) }}",
    "arguments": "{% macro m() %}{{ varargs }}{% endmacro %}{% for i in range(99999) %}{{ m(*range(99999)) }}"
    "{% endfor %}",
    # depth
    "macros": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macros twice": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "macros that call": "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
    "loops in themselves": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "wide loops in themselves": "{% for a in range(99) recursive %}{{ loop(range(99)) }}{% endfor %}",
    "blocks": "{% block b %}{{ self.b() }}{% endblock %}",
    "deep values": "{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}"
    "{{ ns.x }}",
}
BROKEN = {
    "break": "{% break %}",
    "continue": "{% continue %}",
    "break in a macro": "{% for a in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "break in a call": "{% for a in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    "parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "brackets": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "sums": "{{ 1" + "+1" * 20000 + " }}",
    "nots": "{{ " + "not " * 20000 + "1 }}",
    "conditions": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "loops in loops": "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
    "filters": "{{ 1" + " | string" * 20000 + " }}",
    "attributes": "{{ messages" + ".x" * 20000 + " }}",
    "calls": "{{ messages" + "()" * 20000 + " }}",
    "a NUL": "\0{{ 1 }}{% set \0 = 1 %}",
    "half a character": "{{ '\ud800' }}{% set \ud800 = 1 %}",
    "raise": "{% raise %}",
    "raise a word": "{% raise 'x' %}",
    "the length": "x" * (LONGEST_SOURCE + 1),
    "block twice": "{% block b %}{% endblock %}{% block b %}{% endblock %}",
    "loop as a target": "{% for loop in [1] %}{% endfor %}",
    "a slice without end": "{{ messages[1:2:3:4] }}",
    "no such filter": "{{ 1 | nothing }}",
    "import": "{% import 'x' as y %}{{ y }}",
    "include": "{% include 'x' %}",
    "extends": "{% extends 'x' %}",
    "super": "{{ super() }}",
    "caller": "{{ caller() }}",
    "nothing": "{{ none() }}{{ none.x.y }}",
    "no reason": "{{ raise_exception() }}",
    "long reason": "{{ raise_exception('x' * 1000000) }}",
    "lines of a reason": "{{ raise_exception('x\ny\x1b[31mz') }}",
    "by nothing": "{{ 1 // 0 }}",
    "fields": "{{ '{0.__class__}{0.x}'.format(messages) }}",
    "the end of a cycle": "{{ cycler().next() }}",
    "unpacking": "{% for a, b in [1] %}{% endfor %}",
    "changes": "{{ messages.append(1) }}{{ messages[0].update({}) }}",
}
CHILD = """
import json, resource, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.template import ChatTemplate
ChatTemplate("{{ 1 }}").render([{"role": "user", "content": "x"}])
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (768 << 20),) * 2)
for name, source in json.load(sys.stdin).items():
    began, said = time.process_time(), None
    try:
        text = ChatTemplate(source).render([{"role": "user", "content": "x"}])
    except InputError as error:
        said = str(error)
    print(json.dumps([name, said, time.process_time() - began]), flush=True)
"""


def _said(templates: dict[str, str]) -> dict[str, tuple[str | None, float]]:
    """What each template comes to, in a process that may take little memory."""
    command = [sys.executable, "-c", CHILD, json.dumps(sys.path)]
    done = subprocess.run(
        command, input=json.dumps(templates), capture_output=True, text=True, check=False, timeout=1200
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {lines[-1:]}: {done.stderr}"
    return {name: (said, seconds) for name, said, seconds in lines}


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_hostile_template_ends_soon_with_one_line_and_without_much_memory() -> None:
    said = _said(HOSTILE)
    assert said.keys() == HOSTILE.keys()
    quiet = {name for name, (line, _) in said.items() if line is None}
    assert quiet <= {"itself"}, quiet
    assert all("\n" not in line and len(line) < 1000 for line, _ in said.values() if line)
    slow = {name: seconds for name, (_, seconds) in said.items() if seconds > 20}
    assert not slow


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_broken_template_is_told_in_one_line() -> None:
    said = _said(BROKEN)
    assert said.keys() == BROKEN.keys()
    assert all("\n" not in line and len(line) < 1000 for line, _ in said.values() if line)
    assert all(seconds < 20 for _, seconds in said.values())


def test_a_template_is_bounded_in_any_thread() -> None:
    said: list[str] = []

    def render() -> None:
        try:
            ChatTemplate(HOSTILE["loops"]).render(ASKED)
        except TemplateOverBudget as error:
            said.append(str(error))

    threads = [threading.Thread(target=render) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(said) == 3


def test_each_rendering_has_the_whole_budget() -> None:
    template = ChatTemplate("{% for a in range(99999) %}{{ a ~ 'x' }}{% endfor %}")
    for _ in range(5):
        assert template.render(ASKED).endswith("99998x")


@pytest.mark.parametrize("name", ["chatml", "qwen3", "mistral", "llama3"])
def test_long_conversations_are_far_within_the_budget(name: str) -> None:
    turns = [{"role": role, "content": f"{number} " + "text " * 40} for number in range(1000) for role in ROLES]
    template = ChatTemplate.of(TemplateFacts.of(TEMPLATES[name], {"bos_token": "<s>", "eos_token": "</s>"}))
    assert len(template.render(turns[:-1])) > 350_000


def _with_template(bundle: Path, source: str) -> Path:
    """The bundle's base with another template, and the manifest that fits it."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    path = bundle / manifest["base"]["file"]
    rewrite_metadata(path, bundle / "other.gguf", {KEY_TEMPLATE: source})
    (bundle / "other.gguf").replace(path)
    digest = file_digest(path)
    manifest["base"]["digest"] = digest
    for each in manifest["files"]:
        if each["path"] == manifest["base"]["file"]:
            each |= {"size": path.stat().st_size, "sha256": digest}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (HOSTILE["width"], "the base's chat template asks for a width of more than"),
        (HOSTILE["macros"], "the base's chat template calls itself more than"),
        (BROKEN["break"], "the base's chat template is broken ('break' outside loop)"),
        ("{% if tools %}" + HOSTILE["loops"] + "{% endif %}", "the base's chat template makes more than"),
    ],
)
def test_a_bundle_with_such_a_template_is_neither_run_nor_installed(
    source: str, problem: str, goods: Goods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = _with_template(shutil.copytree(goods.bundle, tmp_path / "bundle"), source)
    store = tmp_path / "store"
    for command in (
        ["run", str(bundle), "--prompt", "x"],
        ["adapters", "install", str(bundle), "--store", str(store)],
        ["bench", str(bundle), "--quick"],
    ):
        assert main(command) == 3
        said = capsys.readouterr().err
        assert problem in said
        assert said.count("\n") == 1
    assert Store(store).current() is None


def test_a_template_that_takes_too_much_later_costs_one_request(goods: Goods, tmp_path: Path) -> None:
    later = "{% if messages[0].content == 'bad' %}" + HOSTILE["loops"] + "{% endif %}{{ messages[0].content }}"
    bundle = _with_template(shutil.copytree(goods.bundle, tmp_path / "bundle"), later)
    with Runtime(bundle) as runtime:
        with pytest.raises(InputError, match="the base's chat template makes more than"):
            runtime.generate("bad", adapter="base", max_tokens=2)
        assert runtime.generate("good", adapter="base", max_tokens=2).usage.completion_tokens
