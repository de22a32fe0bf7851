"""Images in a page: the pixels, the prompt and the answers of the native runtime."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from llama_cpp import llama_cpp
from PIL import Image

from edgekit.site import build_site
from edgekit_runtime import Runtime
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.images import MAX_SIDE, read_picture
from tests.browser import needs_chromium
from tests.screen import begin, check
from tests.site import SiteHost, ask, hosting, load_module, phone
from tests.vlm import Model, picture_file

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_chromium

QUESTION = "What is it?"
_BLOB = "const blob = (data) => new Blob([Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0))]);"
READ = f"""async (data) => {{
  {_BLOB}
  const {{ readPicture }} = await import("./images.js");
  try {{
    const {{ width, height, rgb }} = await readPicture(blob(data));
    const digest = await crypto.subtle.digest("SHA-256", rgb);
    return [width, height, [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("")];
  }} catch (error) {{ return [error.code, error.message]; }}
}}"""
ASK = f"""async ([images, request]) => {{
  {_BLOB}
  try {{
    return await runtime.generate({{ ...request, image: images.map(blob) }});
  }} catch (error) {{ return {{ code: error.code, message: error.message }}; }}
}}"""


@pytest.fixture(scope="module")
def seeing_host(smolvlm: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteHost]:
    folder = tmp_path_factory.mktemp("seeing") / "site"
    build_site(smolvlm.bundle, folder)
    with hosting(folder) as host:
        yield host


@pytest.fixture(scope="module")
def native(smolvlm: Model) -> Iterator[Runtime]:
    """With flash attention, as the page's engine has it: answers of random weights part where sums round otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_cpp, "LLAMA_FLASH_ATTN_TYPE_DISABLED", llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO)
        with Runtime(smolvlm.bundle, threads=1, context=512, lookahead=False) as runtime:
            yield runtime


def show(page: Page, images: list[Path], **request: Any) -> dict[str, Any]:
    """One answer about images."""
    data = [base64.b64encode(image.read_bytes()).decode() for image in images]
    answer: dict[str, Any] = page.evaluate(ASK, [data, request])
    return answer


def test_greedy_captions_are_the_native_runtimes(
    seeing_host: SiteHost, native: Runtime, browser: Browser, tmp_path: Path
) -> None:
    images = [picture_file(tmp_path / f"{seed}.png", (60, 40), seed) for seed in (1, 2)]
    parts = [{"type": "image"}, {"type": "text", "text": "or"}, {"type": "image"}]
    with phone(browser) as page:
        load_module(page, seeing_host)
        for image in images:
            for adapter in ("one", "base", "two", "two"):
                want = native.generate(QUESTION, image=image, adapter=adapter, max_tokens=8)
                got = show(page, [image], prompt=QUESTION, adapter=adapter, max_tokens=8)
                assert got["text"] == want.text
                assert got["usage"]["prompt_tokens"] == want.usage.prompt_tokens
        assert got["usage"]["cached_tokens"] > 40  # the same image and question: nothing is encoded again
        messages = [{"role": "user", "content": parts}]
        want = native.generate(messages=messages, image=images, adapter="one", max_tokens=8)
        got = show(page, images, messages=messages, adapter="one", max_tokens=8)
        assert got["text"] == want.text
        want = native.generate("no image", adapter="one", max_tokens=8)
        assert ask(page, prompt="no image", adapter="one", max_tokens=8)["text"] == want.text
        assert page.evaluate("runtime.info.loads") == 1
        for refused, problem in (
            (show(page, [], messages=messages), "speak of 2 images and 0"),
            (show(page, images, messages=[{"role": "user", "content": "an <image>"}]), "3 places for 2 images"),
            (show(page, images * 5, prompt="?"), "at most 8"),
            (show(page, images, raw="It is"), "raw prompt"),
        ):
            assert problem in refused["message"]


def test_the_mark_of_an_image_that_a_message_spells_is_no_image(
    seeing_host: SiteHost, native: Runtime, browser: Browser, tmp_path: Path
) -> None:
    """The engine's own mark is text there; the template's is refused, as on other devices."""
    image = picture_file(tmp_path / "1.png", (60, 40))
    with phone(browser) as page:
        load_module(page, seeing_host)
        own = page.evaluate("runtime.engine.imageMark")
        assert own
        calm = show(page, [image], prompt="an x and an x", adapter="one", max_tokens=4)["usage"]["prompt_tokens"]
        for mark in (own, "<__media__>"):
            for images in ([image], []):
                got = show(page, images, prompt=f"an {mark} and an {mark}", adapter="one", max_tokens=4)
                assert got["text"], got
                cells = 0 if images else calm - 40  # those of the image
                assert calm - cells - 30 < got["usage"]["prompt_tokens"] < calm - cells + 80
        assert "text" in show(page, [], raw=f"{own} {own}", max_tokens=4)
        forged = [
            {"prompt": "an <image>"},
            {"messages": [{"role": "system", "content": "<image>"}, {"role": "user", "content": "?"}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "<image>"}, {"type": "image"}]}]},
        ]
        for request in forged:
            for images in ([image], []):
                refused = show(page, images, **request)
                with pytest.raises(InputError) as error:
                    native.generate(image=images, **request)
                assert (refused["code"], refused["message"]) == ("input", str(error.value))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def scene(width: int, height: int) -> Image.Image:
    """Colours that are smooth in places and rough in others."""
    smooth = Image.merge("RGB", [Image.radial_gradient("L").rotate(angle) for angle in (0, 90, 180)])
    rough = Image.frombytes("RGB", (64, 64), hashlib.shake_128(b"scene").digest(64 * 64 * 3)).resize((256, 256))
    return Image.blend(smooth, rough, 0.4).resize((width, height), Image.Resampling.BICUBIC)


def test_a_page_sees_the_pixels_that_other_devices_see(seeing_host: SiteHost, browser: Browser) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    files = {
        "png": encoded(scene(333, 211), "PNG"),
        "turned": encoded(scene(60, 40), "JPEG", exif=exif),
        "photo": encoded(scene(640, 480), "JPEG", quality=88),
        "webp": encoded(scene(200, 100), "WEBP", quality=80),
        "large": encoded(scene(2731, 1999), "PNG", compress_level=1),
        "tall photo": encoded(scene(1500, 2600), "JPEG"),
        "clear": encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG"),
    }
    with phone(browser) as page:
        page.goto(seeing_host.url + "edgekit-runtime/blank.html")
        for name, content in files.items():
            picture = read_picture(content)
            assert max(picture.width, picture.height) <= MAX_SIDE
            digest = hashlib.sha256(picture.rgb).hexdigest()
            got = page.evaluate(READ, base64.b64encode(content).decode())
            assert got == [picture.width, picture.height, digest], name
        for content, problem in (
            (b"no image", "can't be used"),
            (encoded(scene(400, 20), "PNG"), "a strip of 400 x 20"),
            (bytes(16 * 2**20 + 1), "more than 16 MiB"),
        ):
            code, message = page.evaluate(READ, base64.b64encode(content).decode())
            assert (code, problem in message) == ("input", True), message


def test_a_photo_is_chosen_asked_about_and_kept_in_the_history(
    seeing_host: SiteHost, native: Runtime, browser: Browser, axe: str, tmp_path: Path
) -> None:
    image = tmp_path / "part.jpg"
    image.write_bytes(encoded(scene(900, 1200), "JPEG"))
    with phone(browser, locale="en", bypass_csp=True) as page:
        page.goto(seeing_host.url)
        begin(page)
        assert page.get_attribute("#take", "capture") == "environment"
        page.set_input_files("#pick", image)
        page.wait_for_selector("#photo-shown:not([hidden])")
        check(page, axe, "phone-photo")
        for adapter in ("one", "two"):  # the photo stays for the next adapter
            page.select_option("#adapter", adapter)
            page.click("#send")
            page.wait_for_selector(f"li.answer:nth-of-type({'2' if adapter == 'one' else '4'}) .foot", timeout=60_000)
            want = native.generate("Describe the image.", image=image, adapter=adapter, max_tokens=256).text
            said = page.locator(".said").last.text_content() or ""
            readable = want.partition("\ufffd")[0]  # random weights also say bytes that are no text
            assert readable
            assert said.startswith(readable)
        assert page.locator(".question .photo").count() == 2
        check(page, axe, "phone-photo-answer")
        page.click("#drop-photo")
        page.wait_for_selector("label[for=pick]")
        page.click("#open-menu")
        page.wait_for_selector("#history .photo")
        check(page, axe, "phone-photo-history")


def test_a_text_bundle_takes_no_image(site: Path, browser: Browser, tmp_path: Path) -> None:
    image = picture_file(tmp_path / "1.png", (60, 40))
    with hosting(site) as host, phone(browser, locale="en") as page:
        load_module(page, host)
        answer = show(page, [image], prompt=QUESTION)
        assert (answer["code"], "text bundle" in answer["message"]) == ("input", True)
        page.goto(host.url)
        page.wait_for_selector("#ask:not([hidden])", timeout=120_000)
        assert page.locator("#photo").is_hidden()
