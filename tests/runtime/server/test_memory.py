"""Memory that runs out by a limit, as in a container: a clear error or another engine, and the service goes on."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.goods import Goods
from tests.service import serving

if sys.platform != "linux":
    pytest.skip("limits of other processes are set on Linux alone", allow_module_level=True)

FRONT = """
import asyncio, base64, io, json, resource
import httpx, psutil
from PIL import Image
from edgekit_runtime.server.app import make_app
from edgekit_runtime.server.images import ImageReader
from tests.runtime.server.test_bodies import _Taking, asking

def url(side):
    stream = io.BytesIO()
    Image.new("RGBA", (side, side)).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()

async def main():
    worker = _Taking()
    worker.go.set()
    app = make_app(worker, None, images=ImageReader(task="caption", files=None))
    large, small = url(7000), url(70)
    most = psutil.Process().memory_info().vms + 100 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for each in (small, large, large, small):
            answer = await client.post("/v1/chat/completions", json=asking(each))
            print(json.dumps([answer.status_code, answer.json().get("error", {}).get("message")]))

asyncio.run(main())
"""


def test_an_image_that_there_is_no_memory_for_is_refused_and_the_next_one_is_read() -> None:
    done = subprocess.run([sys.executable, "-c", FRONT], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [status for status, _ in said] == [200, 400, 400, 200]
    assert "there is no memory to decode image 1" in said[1][1]


def test_an_engine_without_memory_for_an_adapter_refuses_it_or_is_replaced(goods: Goods, tmp_path: Path) -> None:
    with serving(goods.bundle) as service:
        expected = service.text()
        worker = service.worker
        now = psutil.Process(worker).memory_info().vms
        resource.prlimit(worker, resource.RLIMIT_AS, (now, now))
        load = {"lora_name": "two", "lora_path": str(goods.two)}
        loaded = service.http.post("/v1/load_lora_adapter", json=load)
        assert loaded.status_code in (200, 400, 409, 503), loaded.text
        assert loaded.status_code == 200 or loaded.json()["error"]["message"]
        for _ in range(3):  # of which each may cost the engine that has no memory
            service.chat(messages=[{"role": "user", "content": "scratch " * 40}], max_tokens=40)
        assert service.text() == expected
        assert service.process.poll() is None


def test_an_engine_that_was_replaced_for_lack_of_memory_answers_as_before(goods: Goods) -> None:
    with serving(goods.bundle) as service:
        expected = service.text()
        worker = service.worker
        resource.prlimit(worker, resource.RLIMIT_DATA, (1 << 20, 1 << 20))  # nothing more
        answer = service.chat(response_format={"type": "json_object"}, max_tokens=40)
        assert answer.status_code in (200, 503), answer.text
        assert service.text() == expected
