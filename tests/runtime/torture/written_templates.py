"""Random chat templates: written anew from what jinja has, or a family's with parts gone, moved, doubled or changed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_TESTS

from tests.chat_templates import TEMPLATES


def _words(text: str) -> list[str]:
    return text.split()


NAMES = _words("""
    messages message m tools tool documents add_generation_prompt bos_token eos_token ns loop self super caller
    varargs kwargs x y z nothing namespace dict range cycler joiner lipsum raise_exception strftime_now none
    true false enable_thinking
    """)
ATTRIBUTES = _words("""
    role content tool_calls function arguments index0 first last previtem cycle changed depth x y z __class__
    __init__ __globals__ __mro__ _private format format_map items keys values append pop get update copy index
    count replace join split strip lstrip startswith encode translate maketrans zfill center ljust expandtabs
    title partition splitlines to_bytes from_bytes bit_length real is_integer as_integer_ratio hex next current
    name catch_kwargs fromkeys gi_frame
    """)
NUMBERS = ["0", "1", "2", "-1", "3", "9", "64", "999", "99999", "4194304", "10000000000", "9" * 40, "9" * 4400, "1.5"]
NUMBERS += ["1e308", "1e999", "-0.0", "0x7fffffff", "1_0", "0b1", "1e-400"]
TEXTS = _words(r"""
    '' 'x' 'user' 'content' 'ab' '%s' '%d' '%9999999999d' '%*d' '%(x)s' '%.99999f' '{}' '{0.__class__}'
    '{:>{}}' '{a:{b}}' '{:99999999d}' '{0[0]}' '<|im_end|>' '</s>' '<unk>' '<think>' '</think>' '\ud800'
    '\udfff' '\x00' '\n' '\x1b[2J' '\N{BULLET}' '\N{no}' '\U0001F600' '\U00110000' '\u202e' 'ß' '%Y-%m-%d'
    '\xf3\xa0\x80\xbc' '<b>' 'http://x.y/z' '9999999999'
    """)
OPERATORS = _words("""
    + - * / // % ** ~ == != < >= and or in
    """)
FILTERS, TESTS = sorted([*DEFAULT_FILTERS, "tojson"]), sorted(DEFAULT_TESTS)
STRAY = _words("""
    {%endfor%} {%endif%} {%else%} {%elif%x%} {%break%} {%continue%} {%endmacro%} {%generation%}
    {%endgeneration%} {%raw%} {%endraw%} {# #} {{ }} {%%} {{- -}} {%-set%} {%include'x'%} {%extends'x'%}
    {%import'x'as+y%} {%do+x%} {%autoescape+true%} {%trans%} {%raise+'x'%} {%from'x'import+y%} {{'x {%for {{ }}
    %} # -%} {%- {%endset%}
    """)
PIECE = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|[^{]+|\{", re.DOTALL)
WORD = re.compile(r"\b\w+\b|'[^']*'|\"[^\"]*\"")


class Writer:
    """Templates, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.chosen = random.Random(seed)

    def template(self) -> str:
        """One template."""
        way = self.chosen.random()
        if way < 0.5:
            return self.body(self.chosen.choice([0, 1, 2, 2, 3, 4]))
        if way < 0.9:
            return self.changed()
        return self.deep()

    def facts(self) -> tuple[str | dict[str, str], dict[str, str]]:
        """What a base says: a template, or several by name, and its special tokens."""
        tokens = {name: self.chosen.choice(["<s>", "", "{{x}}", "</s>", "é"]) for name in ("bos_token", "eos_token")}
        if self.chosen.random() < 0.05:
            names = self.chosen.choice([["default", "tool_use"], ["tool_use"], ["default", "x" * 99], ["default"]])
            return {name: self.template() for name in names}, tokens
        return self.template(), tokens

    def body(self, depth: int) -> str:
        return "".join(self.statement(depth) for _ in range(self.chosen.choice([1, 1, 2, 3])))

    def statement(self, depth: int) -> str:
        pick, value, name = self.chosen.choice, self.expression, self.chosen.choice(NAMES)
        inner: Callable[[], str] = (lambda: self.body(depth - 1)) if depth else (lambda: "x")
        loop = f"{{% for {pick([name, 'm', 'x, y', 'loop'])} in {value(depth)}"
        ways: list[Callable[[], str]] = [
            lambda: f"{{{{ {value(depth)} }}}}",
            lambda: f"{{{{ {value(depth)} }}}}",
            lambda: f"{loop} %}}{inner()}{pick(['', '{% else %}x', '{% break %}'])}{{% endfor %}}",
            lambda: f"{{% for m in messages %}}{inner()}{{% endfor %}}",
            lambda: f"{loop} if {value(1)} %}}{inner()}{{% endfor %}}",
            lambda: f"{loop} recursive %}}{inner()}{{{{ loop({value(1)}) }}}}{{% endfor %}}",
            lambda: f"{{% if {value(depth)} %}}{inner()}{{% elif {value(1)} %}}{{% else %}}{inner()}{{% endif %}}",
            lambda: f"{{% set {pick([name, 'x', 'x, y', 'ns.x', 'ns.ns', 'x.y', 'ns._x'])} = {value(depth)} %}}",
            lambda: f"{{% set ns = namespace({pick(['', 'x=1', value(1), '**' + value(1), '_x=1'])}) %}}{inner()}",
            lambda: f"{{% set x | {pick(FILTERS)} %}}{inner()}{{% endset %}}",
            lambda: f"{{% set x %}}{inner()}{{% endset %}}{{{{ x ~ x }}}}",
            lambda: (
                f"{{% macro x(y, z={value(1)}) %}}{inner()}{pick(['{{ x(y) }}', ''])}{{% endmacro %}}{{{{ x(1) }}}}"
            ),
            lambda: f"{{% call({pick(['', 'y', 'x, y=1'])}) x({value(1)}) %}}{inner()}{{% endcall %}}",
            lambda: f"{{% filter {pick(FILTERS)} %}}{inner()}{{% endfilter %}}",
            lambda: (
                f"{{% block {pick('xyz')} %}}{inner()}{pick(['{{ self.x() }}', '{{ super() }}', ''])}{{% endblock %}}"
            ),
            lambda: f"{{% with x = {value(1)} %}}{inner()}{{% endwith %}}",
            lambda: f"{{% generation %}}{inner()}{{% endgeneration %}}",
            lambda: f"{{% set b = {value(1)} %}}" + "{% set b = [b, b] %}" * pick([2, 40]) + "{{ b }}",
            lambda: "{% set b = 'ab' %}" + "{% set b = b ~ b %}" * pick([3, 60]),
            lambda: pick(STRAY).replace("+", " "),
            lambda: self.noise(),
        ]
        return pick(ways)()

    def expression(self, depth: int) -> str:
        pick = self.chosen.choice
        if depth <= 0 or self.chosen.random() < 0.3:
            return pick([pick(NAMES), pick(NAMES), pick(NUMBERS), pick(TEXTS)])
        one, other = self.expression(depth - 1), self.expression(self.chosen.randrange(depth))
        ways = [
            one,
            f"({one} {pick(OPERATORS)} {other})",
            f"{one}.{pick(ATTRIBUTES)}",
            f"{one}.{pick(ATTRIBUTES)}({other})",
            f"{one}[{other}]",
            f"{one}[{other}:{pick(NUMBERS)}:{pick(['', '2', '-1', '0'])}]",
            f"({one} | {pick(FILTERS)})",
            f"({one} | {pick(FILTERS)}({other}))",
            f"({one} | {pick(['map', 'select', 'reject', 'groupby', 'sort'])}('{pick([*FILTERS, *TESTS])}') | list)",
            f"({one} | {pick(FILTERS)}({pick(['attribute', 'indent', 'width', 'start', 'default', 'by'])}={other}))",
            f"({one} is {pick(TESTS)})",
            f"({one} is not {pick(TESTS)}({other}))",
            f"{pick(NAMES)}({one}, {other})",
            f"{pick(NAMES)}(*{one})",
            f"{pick(NAMES)}(**{{'x': {one}}})",
            f"[{one}, {other}]",
            f"{{{pick(TEXTS)}: {one}, {other}: 1}}",
            f"({one},)",
            f"({one} if {other} else {pick(NUMBERS)})",
            f"-{one}",
            f"not {one}",
            f"range({pick(NUMBERS)})",
        ]
        return pick(ways)

    def changed(self) -> str:
        """A family's template, changed in a few places."""
        known = self.chosen.choice(list(TEMPLATES.values()))
        pieces: list[str] = PIECE.findall(known if isinstance(known, str) else self.chosen.choice(list(known.values())))
        for _ in range(self.chosen.choice([1, 1, 2, 4])):
            at, other = (self.chosen.randrange(len(pieces)) for _ in range(2))
            match self.chosen.randrange(8):
                case 0:
                    pieces[at] = ""
                case 1:
                    pieces[at] *= self.chosen.choice([2, 20])
                case 2:
                    pieces[at], pieces[other] = pieces[other], pieces[at]
                case 3:
                    pieces[at] += self.statement(2)
                case 4:
                    cut = self.chosen.randrange(len(pieces[at]) + 1)
                    pieces[at] = pieces[at][:cut] + self.noise()[:4] + pieces[at][cut + 1 :]
                case _:
                    pieces[at] = self.reworded(pieces[at])
        return "".join(pieces)

    def reworded(self, piece: str) -> str:
        words = list(WORD.finditer(piece))
        if not words:
            return piece
        word = self.chosen.choice(words)
        new = self.chosen.choice([self.expression(1), *map(self.chosen.choice, (NAMES, FILTERS, NUMBERS, TEXTS))])
        return piece[: word.start()] + new + piece[word.end() :]

    def deep(self) -> str:
        """The same around the same, often."""
        often = self.chosen.choice([20, 90, 101, 1000, 20_000])
        ways = [
            ("{% if 1 %}", "x", "{% endif %}"),
            ("{% for x in [1] %}", "{{ loop.index }}", "{% endfor %}"),
            ("{{ " + "(" * often, "1", ")" * often + " }}"),
            ("{{ " + "[" * often, "x", "]" * often + " }}"),
            ("{{ " + "x + " * often, "x", " }}"),
            ("{{ x" + ".y" * often, "", " }}"),
            ("{{ x" + f" | {self.chosen.choice(FILTERS)}" * often, "", " }}"),
            ("{{ " + "not " * often, "x", " }}"),
            ("{{ " + "x" * often, "", " }}"),
            ("{% " + "x" * often, "", " %}"),
            ("{{ 1 | " + "x" * often, "", " }}"),
            ("{# ", "x" * often, ""),
            ("{{ x if x else " * often, "x", " }}" * often),
        ]
        begin, middle, end = self.chosen.choice(ways)
        if begin.startswith("{%") and end.startswith("{%"):
            begin, end = begin * often, end * often
        return begin + middle + end

    def noise(self) -> str:
        signs = "{}%#|()[]'\"\\.,:=~*\n\t \0\x1bxß\u202e\U0001f600-+0"
        return "".join(self.chosen.choice(signs) for _ in range(self.chosen.choice([1, 3, 12])))
