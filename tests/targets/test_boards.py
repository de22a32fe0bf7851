"""Offline, on emulated boards: install.sh, run, swap, serve, and the tokens of this machine."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.bases.demo_vlm.captions import QUESTION
from edgekit.bases.demo_vlm.parts import draw_scene, render
from edgekit.targets.devices import device_profile
from edgekit.targets.emulation import EmulatedBoard, why_not
from edgekit.targets.offline_kit import write_offline
from edgekit.targets.runtime_build import build_runtime
from edgekit_runtime import Runtime
from edgekit_runtime.formats.bundle import open_bundle
from tests.vlm import Model

PREFIX = "/opt/edgekit"
PROMPT, TOKENS = "Name a fruit.", 6
# What the engine has to have picked from its kernels: Cortex-A53 and A72 have no dot product, A76 has.
BOARDS = {"raspberry-pi-4": False, "raspberry-pi-5": True, "raspberry-pi-zero-2w": False}

pytestmark = pytest.mark.skipif(why_not() is not None, reason=": ".join(why_not() or ()))


@pytest.fixture(scope="module")
def expected(demo_bundle: Path) -> dict[str, str]:
    """Answers of this machine, on the engine that was compiled here."""
    with Runtime(demo_bundle, context=512) as runtime:
        names = ["base", *(entry.name for entry in runtime.manifest.adapters)]
        return {name: runtime.generate(PROMPT, adapter=name, max_tokens=TOKENS, temperature=0).text for name in names}


@pytest.fixture(scope="module")
def board(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBoard]:
    """A board on which the kit is installed: nothing is compiled or fetched there."""
    profile = device_profile("raspberry-pi-4")
    made = EmulatedBoard(profile, tmp_path_factory.mktemp("board"))
    with open_bundle(demo_bundle) as bundle:
        archive = write_offline(bundle, build_runtime(profile), made.path("/tmp/kit.tar"))
    print(f"\nkit of {archive.stat().st_size / 1e6:.0f} MB")
    print(made.run(f"cd /tmp && tar xf kit.tar && sh kit/install.sh --prefix {PREFIX}"))
    yield made
    shutil.rmtree(made.path("/"), ignore_errors=True)


def _answers(board: EmulatedBoard, cpu: str, name: str) -> str:
    options = f"--store {PREFIX}/store --adapter {name} --max-tokens {TOKENS} --temperature 0 --context 512 --json"
    said = board.run(f'{PREFIX}/runtime/bin/edgekit-runtime run {options} --prompt "{PROMPT}"', cpu=cpu)
    text: str = json.loads(said)["text"]
    return text


def test_there_is_no_network_and_no_compiler_on_the_board(board: EmulatedBoard) -> None:
    said = board.run("cat /proc/net/dev | wc -l; command -v cc gcc pip3 || echo nothing; uname -m")
    assert said.split() == ["3", "nothing", "aarch64"]  # two lines of heading, and lo


@pytest.mark.parametrize("name", BOARDS)
def test_each_board_gives_the_tokens_of_this_machine(name: str, board: EmulatedBoard, expected: dict[str, str]) -> None:
    cpu = device_profile(name).qemu_cpu
    engine = board.run(f"{PREFIX}/runtime/bin/edgekit-runtime doctor --json", cpu=cpu)
    features = next(check["found"] for check in json.loads(engine) if check["what"] == "engine")
    print(f"\n{name} ({cpu}): {features}")
    assert ("DOTPROD" in features) == BOARDS[name]
    assert {adapter: _answers(board, cpu, adapter) for adapter in expected} == expected


def test_another_adapter_is_swapped_in_and_rolled_back(board: EmulatedBoard, expected: dict[str, str]) -> None:
    adapters = f"{PREFIX}/runtime/bin/edgekit-runtime adapters"
    store = f"--store {PREFIX}/store"
    board.run(f"{adapters} remove two {store}")
    listed = json.loads(board.run(f"{adapters} list {store} --json"))
    assert [each["name"] for each in listed["adapters"]] == ["one"]
    board.run(f"{adapters} rollback {store}")
    assert _answers(board, "cortex-a72", "two") == expected["two"]


def test_the_service_answers_each_request_with_its_adapter(board: EmulatedBoard, expected: dict[str, str]) -> None:
    board.path("/tmp/ask.py").write_text(ASK)
    names = " ".join(name for name in expected if name != "base")
    said = board.run(
        f"{PREFIX}/runtime/bin/edgekit-runtime serve --store {PREFIX}/store --port 8091 --context 512 --parallel 1 &\n"
        f"service=$!\npython3 /tmp/ask.py '{PROMPT}' {TOKENS} {names}\nkill $service\nwait $service || true"
    )
    answers = json.loads(said.strip().splitlines()[-1])
    assert answers == {name: text for name, text in expected.items() if name != "base"}


def test_images_are_described_as_on_this_machine(board: EmulatedBoard, camera: Model, tmp_path: Path) -> None:
    chosen = random.Random(4)
    shutil.copytree(camera.bundle, board.path("/tmp/camera"))
    wanted = {}
    with Runtime(camera.bundle, context=256) as runtime:
        for number in range(2):
            image = tmp_path / f"part-{number}.png"
            render(draw_scene(chosen), chosen).save(image)
            shutil.copy(image, board.path(f"/tmp/{image.name}"))
            for name in ("base", "one", "two"):
                answer = runtime.generate(QUESTION, image=image, adapter=name, max_tokens=TOKENS).text
                wanted[image.name, name] = answer
    assert len(set(wanted.values())) > 1
    print(f"\n{wanted}")
    options = f'--max-tokens {TOKENS} --context 256 --prompt "{QUESTION}"'
    run = f"{PREFIX}/runtime/bin/edgekit-runtime run /tmp/camera {options}"
    for cpu in ("cortex-a72", "cortex-a76"):
        said = {
            (image, name): board.run(f"{run} --image /tmp/{image} --adapter {name}", cpu=cpu).removesuffix("\n")
            for image, name in wanted
        }
        assert said == wanted


ASK = """
import json, sys, time, urllib.request

prompt, tokens, *names = sys.argv[1:]
def ask(path, body=None):
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request("http://127.0.0.1:8091" + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=900) as reply:
        return json.load(reply)

for _ in range(600):
    try:
        ask("/health")
        break
    except OSError:
        time.sleep(1)
answers = {}
for name in names:
    message = {"role": "user", "content": prompt}
    body = {"model": name, "messages": [message], "max_tokens": int(tokens), "temperature": 0}
    answer = ask("/v1/chat/completions", body)
    answers[name] = answer["choices"][0]["message"]["content"]
print(json.dumps(answers))
"""
