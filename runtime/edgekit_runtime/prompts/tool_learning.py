"""Finds out how a chat template writes calls of functions, by rendering conversations whose calls are known.

What stands around the names and arguments of one call, of two, and of a text with a call, is the form.  It is taken
only if calls with values of all kinds, rendered and read back, are what they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts import tool_syntax as forms
from edgekit_runtime.prompts.budget import SECONDS
from edgekit_runtime.prompts.template import Message, TemplateOverBudget
from edgekit_runtime.prompts.tool_arguments import read_bare, read_keywords, read_object, read_tagged
from edgekit_runtime.prompts.tool_format import DEFAULT_FORMAT, ToolFormat
from edgekit_runtime.prompts.tool_syntax import Call, CallSyntax

Render = Callable[..., str]
MARK = "\N{SNOWMAN}9027160435\N{SNOWMAN}"  # a text that begins as no call does
_FIRST, _SECOND = "probe_gauge", "probe_valve"
_KEYS, _VALUES = ("first_key", "second_key"), ("firsttext", "secondtext")
_ARGUMENTS = dict(zip(_KEYS, _VALUES, strict=True))
_IDS = ("abcdefgh1", "abcdefgh2")  # of nine signs: Mistral's templates take no others
_LONG_ID = "call_abcdefgh1"
PROBED = "probe_tool"
PROBED_TOOL = {
    "type": "function",
    "function": {
        "name": PROBED,
        "description": "a probe",
        "parameters": {"type": "object", "properties": {"size": {"type": "number", "description": "a size"}}},
    },
}
# Values of all kinds; what has no quotes can't tell a number from its text, so texts here look like texts.
_TRIALS: tuple[dict[str, Any], ...] = (
    {},
    {"text": 'it\'s "so", 4 > 3 & 50%', "lines": "one\n two"},
    {"whole": -3, "half": 0.5, "yes": True, "no": False, "none": None},
    {"list": ["a", 1, [True]], "inner": {"deep": {"text": "x"}, "list": []}},
    {"sign": "检 \U0001f527"},
)
_LONGEST = 2000  # characters around names and arguments
_ABSENT = "the base's chat template renders no calls"
_STRANGE = "the base's chat template writes calls in a way that can't be read back"


class _Place(NamedTuple):
    """Where a call stands in a text, and how it is written."""

    start: int
    end: int
    syntax: CallSyntax


@dataclass(frozen=True)
class _Probe:
    """Renders answers to one question."""

    render: Render
    tools: Sequence[Mapping[str, Any]]

    def said(self, **answer: Any) -> str | None:
        """The conversation with this answer; None where the template refuses it."""
        messages: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", **answer}]
        return self._text(messages, add_generation_prompt=False)

    def called(self, *calls: Call, content: str | None = None) -> str | None:
        """The conversation with calls; some templates want a content beside them."""
        text = self.said(content=content, tool_calls=_entries(calls))
        return self.said(content="", tool_calls=_entries(calls)) if text is None and content is None else text

    def wants_content(self) -> bool:
        """Whether calls have to have a text beside them, be it empty."""
        return self.said(content=None, tool_calls=_entries([Call(_FIRST, _ARGUMENTS)])) is None

    def wants_short_ids(self) -> bool:
        """Whether ids have to have nine signs."""
        return self.said(content="", tool_calls=[Call(_FIRST, _ARGUMENTS).message_form(_LONG_ID)]) is None

    def prompt(self) -> str | None:
        return self._text([{"role": "user", "content": "?"}], add_generation_prompt=True)

    def _text(self, messages: list[Message], **options: Any) -> str | None:
        try:
            return self.render(messages, tools=self.tools, **options)
        except TemplateOverBudget:  # and so would the next one
            raise
        except InputError:
            return None


def _entries(calls: Sequence[Call]) -> list[dict[str, Any]]:
    return [call.message_form(identity) for call, identity in zip(calls, _IDS, strict=False)]


def learnt(render: Render) -> ToolFormat:
    """The form of a template; edgekit's own where it renders no calls.

    Args:
        render: messages to text, with ``tools`` and ``add_generation_prompt`` as
            :meth:`~edgekit_runtime.prompts.template.ChatTemplate.render` has them.

    Raises:
        TemplateOverBudget: it takes too much.
    """
    strange = None
    render = _within(2 * SECONDS, render)
    for tools in ((PROBED_TOOL,), ()):
        probe = _Probe(render, tools)
        one = probe.called(Call(_FIRST, _ARGUMENTS))
        if one is None or _FIRST not in one:
            continue
        found = _form(probe, one)
        found = None if found is None or sum(map(len, found.literals)) > _LONGEST else _with_words(probe, found)
        if found is not None and _reads_back(probe, found):
            return replace(found, wants_content=probe.wants_content(), short_ids=probe.wants_short_ids())
        strange = ToolFormat(None, why=_STRANGE)
    return strange or replace(DEFAULT_FORMAT, why=_ABSENT)


def _within(seconds: float, render: Render) -> Render:
    """The same, as long as all renderings together take no longer, in CPU time of this thread."""
    left = seconds

    def bounded(messages: list[Message], **options: Any) -> str:
        nonlocal left
        if left <= 0:
            raise TemplateOverBudget(
                f"the base's chat template takes more than {seconds:g} s for a few calls of functions",
                "use a base with another template, or give one as chat_template: in edgekit.yaml",
            )
        began = time.thread_time()
        try:
            return render(messages, **options)
        finally:
            left -= time.thread_time() - began

    return bounded


def _form(probe: _Probe, one: str) -> ToolFormat | None:
    turn = _turn(probe, one)
    answer = one[turn.begun :]
    place = _located(answer, _FIRST, _ARGUMENTS, _IDS[0])
    if place is None or _IDS[0] in answer[: place.start] + answer[place.end :]:
        return None
    opening, rest = answer[: place.start].lstrip(), answer[place.end :]
    between = _between(probe.called(Call(_FIRST, _ARGUMENTS), Call(_SECOND, _ARGUMENTS)))
    form = ToolFormat(place.syntax, opening, parallel=between is not None, blocks=between is None)
    if between is not None and between.endswith(opening):
        shut = between[: len(between) - len(opening)]
        closing = shut[: _common(shut, rest)]
        form = replace(form, blocks=True, between=between, closing=closing.rstrip())
    else:
        form = replace(form, between=between or "", closing=turn.without_end(rest).rstrip())
    return replace(form, gap=_gap(probe, form))


class _Turn(NamedTuple):
    """Where the answer begins in a rendered conversation, and what a text is followed by at its end."""

    begun: int
    tail: str

    def without_end(self, text: str) -> str:
        """Without the token that ends the turn; where calls end with another one, it is the last in angle brackets."""
        if self.tail and text.endswith(self.tail):
            return text.removesuffix(self.tail)
        bare = text.rstrip()
        return bare[: bare.rindex("<")] if bare.endswith(">") and "<" in bare else text


def _turn(probe: _Probe, one: str) -> _Turn:
    text, prompt = probe.said(content=MARK), probe.prompt()
    begun = len(prompt) if prompt is not None and one.startswith(prompt) else 0
    if text is None or MARK not in text:
        return _Turn(begun, "")
    return _Turn(max(begun, _common(one, text)), text[text.rindex(MARK) + len(MARK) :])


def _between(two: str | None) -> str | None:
    """What stands between two calls; None where the template takes one at a time."""
    if two is None:
        return None
    first = _located(two, _FIRST, _ARGUMENTS, _IDS[0])
    second = _located(two, _SECOND, _ARGUMENTS, _IDS[1])
    return None if first is None or second is None or second.start < first.end else two[first.end : second.start]


def _gap(probe: _Probe, form: ToolFormat) -> str:
    """What stands between a text and calls."""
    both = probe.called(Call(_FIRST, _ARGUMENTS), content=MARK)
    behind = both[both.rindex(MARK) + len(MARK) :] if both is not None and MARK in both else ""
    place = _located(behind, _FIRST, _ARGUMENTS, _IDS[0])
    before = "" if place is None else behind[: place.start]
    return before.removesuffix(form.opening) if before.endswith(form.opening) else ""


def _with_words(probe: _Probe, form: ToolFormat) -> ToolFormat | None:
    """A form with its words for null, true and false, where they may be others than JSON's."""
    syntax = form.syntax
    if syntax is None or syntax.kind not in (forms.KEYWORDS, forms.BARE):
        return form
    words = []
    for value in (None, True, False):
        text = probe.called(Call(_FIRST, {_KEYS[0]: value}))
        at = -1 if text is None else text.find(_KEYS[0], text.find(_FIRST))
        if text is None or at < 0:
            return None
        begun = at + len(_KEYS[0]) + 1
        words.append(text[begun : text.index(syntax.foot, begun)])
    return replace(form, syntax=replace(syntax, marks=(*syntax.marks, *words)))


def _reads_back(probe: _Probe, form: ToolFormat) -> bool:
    """Whether calls with all kinds of values come back as they were."""
    for number, arguments in enumerate(_TRIALS):
        calls = [Call(_FIRST, arguments)]
        if form.parallel:
            calls.append(Call(_SECOND, _TRIALS[number - 1]))
        text = probe.called(*calls)
        if text is None:
            return False
        turn = _turn(probe, text)
        found = form.parse(turn.without_end(text[turn.begun :]))[1]
        if [(each.name, each.arguments) for each in found] != [(each.name, each.arguments) for each in calls]:
            return False
    return True


def _located(text: str, name: str, arguments: dict[str, Any], identity: str) -> _Place | None:
    """A call in a text, by what it has to hold."""
    at = text.find(name)
    if at < 0:
        return None
    for find in (_as_object, _as_named, _as_keywords, _as_bare, _as_tagged):
        try:
            place = find(text, at, name, arguments, identity)
        except (ValueError, RecursionError):
            continue
        if place is not None:
            return place
    return None


def _as_object(text: str, at: int, name: str, arguments: dict[str, Any], identity: str) -> _Place | None:
    """The innermost object that holds both."""
    start = at
    while (start := text.rfind("{", 0, start)) >= 0:
        try:
            value, end = read_object(text, start)
        except ValueError:
            continue
        keys = [next((key for key, each in value.items() if each == known), None) for known in (name, arguments)]
        if end <= at or None in keys:
            continue
        id_key = next((key for key, each in value.items() if each == identity), None)
        known = [*(key for key in keys if key is not None), *([id_key] if id_key else [])]
        begun = text.index("{", at)
        ended = read_object(text, begun)[1]
        foot, _, rest = text[ended:end].partition(identity) if id_key else (text[ended:end], "", "")
        constants = {key: each for key, each in value.items() if key not in known}
        middle = text[at + len(name) : begun]
        return _Place(start, end, CallSyntax(forms.OBJECT, text[start:at], middle, foot, rest, tuple(known), constants))
    return None


def _as_named(text: str, at: int, name: str, arguments: dict[str, Any], _: str) -> _Place | None:
    begun = text.index("{", at)
    value, end = read_object(text, begun)
    middle = text[at + len(name) : begun]
    good = value == arguments and middle
    return _Place(at, end, CallSyntax(forms.NAMED, middle=middle)) if good else None


def _as_keywords(text: str, at: int, name: str, arguments: dict[str, Any], _: str) -> _Place | None:
    behind = at + len(name)
    if not text.startswith("(", behind):
        return None
    value, end = read_keywords(text, behind + 1)
    spelt = text.index(next(iter(arguments.values())), behind)
    syntax = CallSyntax(forms.KEYWORDS, middle="(", foot=")", marks=(text[spelt - 1],))
    return _Place(at, end + 1, syntax) if value == arguments else None


def _as_bare(text: str, at: int, name: str, arguments: dict[str, Any], _: str) -> _Place | None:
    behind = at + len(name)
    key, value = next(iter(arguments.items()))
    begun = text.index(f"{key}:", behind) + len(key) + 1
    mark = text[begun : text.index(value, begun)]
    if not text.startswith("{", behind) or not mark.strip() or mark != mark.strip():
        return None
    found, end = read_bare(text, behind + 1, mark)
    good = found == arguments
    return _Place(at, end + 1, CallSyntax(forms.BARE, middle="{", foot="}", marks=(mark,))) if good else None


def _as_tagged(text: str, at: int, name: str, arguments: dict[str, Any], _: str) -> _Place | None:
    """Tags are what stands before each key, between key and value, and behind each value."""
    (key, value), (other_key, other_value) = arguments.items()
    key_at = text.index(key, at + len(name))
    value_at = text.index(value, key_at)
    other_at = text.index(other_key, value_at)
    before, apart = text[at + len(name) : key_at], text[value_at + len(value) : other_at]
    shared = _common(before[::-1], apart[::-1])
    tag = before[len(before) - shared :].lstrip()
    tag = tag[max(tag.rfind("<"), 0) :]
    behind, between = apart[: len(apart) - len(tag)], text[key_at + len(key) : value_at]
    middle = before[: len(before) - len(tag)]
    marks = (tag, between, behind)
    if not all(each.strip() for each in marks):
        return None
    found, end = read_tagged(text, at + len(name) + len(middle), marks, arguments)
    good = found == arguments and text.startswith(behind, text.index(other_value, other_at) + len(other_value))
    return _Place(at, end, CallSyntax(forms.TAGGED, middle=middle, marks=marks)) if good else None


def _common(one: str, other: str) -> int:
    """How long the beginning is that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
