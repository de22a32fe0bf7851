"""Chat templates of any kind, from a base's header to the ids of a prompt, in a process that may take little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.raw_gguf import metadata_of_base, tensors_of_base, write_raw
from tests.runtime.torture.written_templates import Writer

SLOWEST = 5.0  # seconds of CPU time: to compile, and for each rendering
BATCH = 500
CHILD = """
import dataclasses, json, resource, sys, time
sys.path[:0] = json.loads(sys.argv[1])
from pathlib import Path
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.prompts.chat import Asking
from edgekit_runtime.engines.opening import open_engine
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.prompts.rendering import Prompts
from edgekit_runtime.prompts.template import ChatTemplate, TemplateFacts
from edgekit_runtime.prompts.tokenizing import BoundedTokenizer

base = Path(sys.argv[2])
engine = open_engine(BaseFiles("llama.cpp", base), context=256, threads=1)
header = read_gguf(base)
tokenize = BoundedTokenizer(engine, header)
ChatTemplate("{{ 1 }}").render([{"role": "user", "content": "x"}])
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (768 << 20),) * 2)
call = {"type": "function", "function": {"name": "f", "arguments": {"a": "</s>"}}}
user = {"role": "user", "content": "x"}
asked = [
    ([user], Asking(None)),
    ([{"role": "system", "content": "s"}, user, {"role": "assistant", "content": "</s><unk> <think>a</think>b"}, user],
     Asking("t", {"enable_thinking": True})),
    ([user, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "1"}, user],
     Asking(None, None, [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])),
]
for line in sys.stdin:
    number, source, tokens = json.loads(line)
    seconds, said = [], []
    def timed(action):
        began = time.process_time()
        try:
            said.append([None, action()])
        except EdgekitError as error:
            said.append([error.exit_code, str(error)])
        except BaseException:
            print(f"template {number}", file=sys.stderr)
            raise
        seconds.append(time.process_time() - began)
        return said[-1]
    facts = TemplateFacts.of(source, tokens)
    template = []
    timed(lambda: template.append(ChatTemplate.of(facts)))
    for each in template:
        for messages, asking in asked:
            timed(lambda: len(each.render(messages, tools=asking.tools, arguments=asking.arguments)))
    fast = max(seconds)
    stored = {key: value for key, value in facts.metadata().items() if value is not None}
    told = dataclasses.replace(header, metadata={**header.metadata, **stored})
    prompts = []
    code, _ = timed(lambda: prompts.append(Prompts(told, tokenize)))
    for each in prompts:
        for messages, asking in asked:
            def whole():
                tokens = each.chat(messages, asking).tokens
                assert 0 <= each.preamble(tokens, asking) < max(len(tokens), 1)
                return len(tokens)
            code, _ = timed(whole)
    print(json.dumps([number, said, fast, max(seconds)]), flush=True)
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_written_templates(tmp_path: Path, torture: bool, figures: Callable[[str, object], None]) -> None:
    """Each is a prompt or a refusal in one line, soon, and nothing else ever."""
    base = write_raw(tmp_path / "base.gguf", metadata_of_base(), tensors_of_base())
    writer, counts = Writer(4), Counter[str]()
    count = 10_000 if torture else 300
    slowest, largest = [0.0, 0.0], 0
    for start in range(0, count, BATCH):
        lines = [(number, *writer.facts()) for number in range(start, min(start + BATCH, count))]
        answers, memory = _said(base, lines)
        largest = max(largest, memory)
        for number, said, *seconds in answers:
            slowest = list(map(max, slowest, seconds))
            codes = {code for code, _ in said}
            source = str(lines[number - start][1])[:2000]
            assert codes <= {None, 3}, (source, said)
            assert all(len(text) < 1000 and "\n" not in text for code, text in said if code), (source, said)
            assert seconds[0] < SLOWEST, (source, seconds)
            compiles, prompts = said[0][0] is None, said[-1][0] is None
            counts["a prompt" if prompts else "refused when rendered" if compiles else "refused when compiled"] += 1
    assert counts.total() == count
    assert min(counts.values()) > count // 10  # or they would prove little
    for kind, number in sorted(counts.items()):
        figures(f"written templates: {kind}", number)
    figures("written templates: slowest step, s of CPU time", round(slowest[0], 2))
    figures("written templates: slowest whole prompt, s of CPU time", round(slowest[1], 2))
    figures("written templates: most memory of their process, MiB", largest)


def _said(base: Path, lines: list[tuple[int, str | dict[str, str], dict[str, str]]]) -> tuple[list[list], int]:
    """What each comes to, and the most memory of the process, in MiB."""
    command = [sys.executable, "-c", CHILD, json.dumps(sys.path), str(base)]
    given = "".join(json.dumps(each) + "\n" for each in lines)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=3600)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        number = answers[-1][0] + 1 if answers else lines[0][0]
        source = str(lines[number - lines[0][0]][1])[:3000]
        pytest.fail(f"{number}: exit code {done.returncode}: {source}\n{done.stderr[-3000:]}")
    assert not done.stderr  # nobody is warned of what stands in a template
    return answers[:-1], answers[-1]
