"""Files that are whole and say something wrong: every key, type, count, tensor and name in turn, by what it is.

Damage to bytes (:mod:`tests.runtime.torture.test_mutations`) seldom gets past the first check; these do.
"""

from __future__ import annotations

import io
import json
import random
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.base_header import _expected, check_base_header
from edgekit_runtime.formats.bundle import open_bundle
from edgekit_runtime.formats.gguf import VALUE_NAMES, GgufFile, read_gguf
from edgekit_runtime.intake import canary
from edgekit_runtime.intake.adapters import take_in
from tests.goods import Goods
from tests.raw_gguf import NUMBERS, WIDTH, Tensor, Value, metadata_of_base, tensors_of_base, write_raw

SLOWEST = 5.0  # seconds for one file
KEYS = sorted(_expected("llama"))
SCALARS = [name for name in VALUE_NAMES if name != "ARRAY"]
BOUNDS = {"U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64}
TEXTS = [
    "",
    "x",
    "llama",
    "adapter",
    "lora",
    "gpt2",
    "none",
    "a\0b",
    "\x1b[2J\n",
    "\u202e",
    "n" * 70_000,
    "{%",
    "9" * 5000,
]
NUMBERS_OF = (0, 1, 2, 3, 4, 7, 8, 31, 32, 33, 255, 256, 511, 512, 513, 1024, 1025, 65_535)


class Shaper:
    """Random wrong files, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.chosen = random.Random(seed)

    def value(self, stored: str | None = None) -> Value:
        """Some value of some type."""
        chosen = self.chosen
        stored = stored or chosen.choice(SCALARS + [f"[{name}]" for name in SCALARS])
        if stored.startswith("["):
            return stored, [self.plain(stored[1:-1]) for _ in range(chosen.choice([0, 1, 2, 3, 300]))]
        return stored, self.plain(stored)

    def plain(self, stored: str) -> Any:
        chosen = self.chosen
        if stored == "STRING":
            return chosen.choice(TEXTS)
        if stored == "BOOL":
            return chosen.random() < 0.5
        if stored in ("F32", "F64"):
            return chosen.choice([0.0, -0.0, 1.0, -1.0, 1e-30, 3e38, float("nan"), float("inf"), -float("inf")])
        bits = BOUNDS[stored]
        least, most = (0, (1 << bits) - 1) if stored[0] == "U" else (-(1 << bits - 1), (1 << bits - 1) - 1)
        number = chosen.choice([least, most, most - 1, most // 2, *NUMBERS_OF])
        return max(least, min(number, most))

    def metadata(self, sound: dict[str, Value]) -> dict[str, Value]:
        """A few keys gone, of another type or of another value."""
        found = dict(sound)
        for _ in range(self.chosen.choice([0, 1, 1, 2, 3])):
            key = self.chosen.choice([*found, *found, self.chosen.choice(KEYS)])
            match self.chosen.randrange(4):
                case 0:
                    found.pop(key, None)
                case 1:
                    found[key] = self.value()
                case _:
                    known = found[key][0] if key in found else self.chosen.choice(_expected("llama").get(key, ("U32",)))
                    found[key] = self.value(known)
        return found

    def tensors(self, sound: dict[str, Tensor]) -> dict[str, Tensor]:
        """A few gone, renamed, turned, of another type or of other values."""
        found = dict(sound)
        for _ in range(self.chosen.choice([0, 0, 1, 2])):
            name = self.chosen.choice(list(sound))
            type_name, shape, content = found.pop(name, sound[name])
            match self.chosen.randrange(6):
                case 0:
                    continue
                case 1:
                    found[self.chosen.choice([name + "x", "", "x" * 64, "a\0b", "blk.9.attn_q.weight"])] = (
                        *(type_name, shape),
                        content,
                    )
                case 2:
                    found[name] = (type_name, tuple(reversed(shape)), content)
                case 3:
                    found[name] = (self.chosen.choice(list(NUMBERS)), shape, content)
                case 4:
                    found[name] = (type_name, self.chosen.choice([(), (1,), (0,), (1 << 40,), (WIDTH,) * 4]), content)
                case 5:
                    bits = self.chosen.choice([b"\x00", b"\xff", b"\x7f\xc0"])
                    found[name] = (type_name, shape, (bits * len(content))[: len(content)])
        return found


def timed(counts: Counter[str], kind: str, action: Callable[[], object]) -> None:
    """Do it: an answer or a refusal in one line, and in time."""
    start = time.monotonic()
    try:
        action()
        counts[f"{kind}: taken"] += 1
    except EdgekitError as error:
        if error.exit_code != InputError.exit_code:
            raise
        counts[f"{kind}: refused"] += 1
    assert time.monotonic() - start < SLOWEST, kind


def run_in_children(base: BaseFiles, left: list[Path], counts: Counter[str]) -> None:
    """Run adapters that were taken, a hundred in a process: none may make the engine crash or hang."""
    while left:
        some = left[:100]
        try:
            canary.try_adapters(base, some)
            counts["adapter in a child: runs"] += len(some)
            left = left[100:]
        except InputError as error:  # some compute what is no number; those behind it have not been run
            if not any(word in str(error) for word in ("computes what is no number", "llama.cpp refuses")):
                raise
            at = next(number for number, each in enumerate(some) if str(each) in str(error))
            counts["adapter in a child: runs"] += at
            counts["adapter in a child: refused"] += 1
            left = left[at + 1 :]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    path = tmp_path_factory.mktemp("base") / "base.gguf"
    return read_gguf(write_raw(path, metadata_of_base(), tensors_of_base()))


LORA: dict[str, Value] = {
    "general.type": ("STRING", "adapter"),
    "general.architecture": ("STRING", "llama"),
    "adapter.type": ("STRING", "lora"),
    "adapter.lora.alpha": ("F32", 8.0),
    "edgekit.name": ("STRING", "one"),
    "edgekit.version": ("STRING", "1.0"),
    "edgekit.rank": ("U32", 4),
    "edgekit.system": ("STRING", "Be short."),
    "edgekit.generation": ("STRING", "{}"),
    "adapter.alora.invocation_tokens": ("[U32]", [1, 2]),
}


def lora_tensors() -> dict[str, Tensor]:
    chosen = random.Random(1)
    return {
        f"blk.{layer}.attn_q.weight.lora_{half}": (
            "F32",
            shape,
            b"".join(chosen.choice([b"\0\0\x80\x3e", b"\0\0\x80\xbe"]) for _ in range(WIDTH * 4)),
        )
        for layer in range(2)
        for half, shape in (("a", (WIDTH, 4)), ("b", (4, WIDTH)))
    }


def test_shaped_adapters(base: GgufFile, tmp_path: Path, torture: bool, figures: Callable[[str, object], None]) -> None:
    """What our reader takes is run in a child, many at once: what crashes there is told."""
    shaper, counts = Shaper(1), Counter[str]()
    taken: list[Path] = []
    path = tmp_path / "a.gguf"
    for number in range(10_000 if torture else 300):
        write_raw(path, shaper.metadata(LORA), shaper.tensors(lora_tensors()))
        timed(counts, "adapter", lambda: take_in(path, base, family=None))
        if counts["adapter: taken"] > len(taken):
            taken.append(path.rename(tmp_path / f"{number}.gguf"))
    run_in_children(BaseFiles("llama.cpp", base.path), taken if torture else taken[:10], counts)
    for kind, count in sorted(counts.items()):
        figures(f"shaped {kind}", count)


def test_shaped_bases(tmp_path: Path, torture: bool, figures: Callable[[str, object], None]) -> None:
    """Whatever our reader takes is a base, a refusal, or a crash of a child that is told in one line."""
    shaper, counts = Shaper(2), Counter[str]()
    taken: list[Path] = []
    for number in range(6_000 if torture else 200):
        sound = metadata_of_base(shaper.chosen.choice(["llama", "gpt2"]))
        path = write_raw(tmp_path / f"{number}.gguf", shaper.metadata(sound), shaper.tensors(tensors_of_base()))
        timed(counts, "base", lambda path=path: check_base_header(read_gguf(path)))
        if counts["base: taken"] > len(taken):
            taken.append(path)
        else:
            path.unlink()

    def run(path: Path) -> str:
        try:
            canary.try_adapters(BaseFiles("llama.cpp", path), [])
        except InputError as error:
            return next((word for word in ("crashes", "hangs") if word in str(error)), "refused")
        return "runs"

    most = 400 if torture else 6
    with ThreadPoolExecutor(2) as pool:
        counts.update(f"base in a child: {each}" for each in pool.map(run, taken[:most]))
    assert counts["base in a child: hangs"] == 0
    for kind, count in sorted(counts.items()):
        figures(f"shaped {kind}", count)


def shaped_json(shaper: Shaper, document: Any) -> Any:
    """The same with one value somewhere replaced by one that it can't be."""
    odd: list[Any] = [
        None,
        True,
        -1,
        1 << 70,
        1e999,
        "",
        "x" * 200_000,
        "a\nb",
        "\x1b[2J",
        "9" * 5000,
        [],
        {},
        [[]],
        "../x",
    ]
    if isinstance(document, dict) and document and shaper.chosen.random() < 0.8:
        key = shaper.chosen.choice(list(document))
        changed = {**document, key: shaped_json(shaper, document[key])}
        if shaper.chosen.random() < 0.1:
            del changed[key]
        return changed
    if isinstance(document, list) and document and shaper.chosen.random() < 0.8:
        at = shaper.chosen.randrange(len(document))
        return [*document[:at], shaped_json(shaper, document[at]), *document[at + 1 :]]
    return shaper.chosen.choice(odd)


def test_shaped_tars(goods: Goods, tmp_path: Path, torture: bool, figures: Callable[[str, object], None]) -> None:
    """Manifests and members that are well-formed and wrong."""
    shaper, counts = Shaper(3), Counter[str]()
    document = json.loads((goods.bundle / "manifest.json").read_text())
    small = {each["path"]: b"x" for each in document["files"]}
    names = [
        "a" * 300,
        "/".join("d" * 3000),
        "../x",
        "/x",
        "a\\b",
        "a:b",
        "a\nb",
        ".",
        "",
        "base/",
        "\udcff",
        "é" * 200,
    ]
    path = tmp_path / "a.tar"
    for _ in range(6_000 if torture else 200):
        members = [("manifest.json", json.dumps(shaped_json(shaper, document)).encode()), *small.items()]
        for _ in range(shaper.chosen.choice([0, 0, 1, 2])):
            members.insert(shaper.chosen.randrange(len(members)), (shaper.chosen.choice(names), b"x"))
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=shaper.chosen.choice([0, 1, 2]), errors="ignore") as tar:
            for name, content in members:
                member = tarfile.TarInfo(f"bundle/{name}")
                member.size = len(content)
                member.type = shaper.chosen.choice(
                    [tarfile.REGTYPE] * 20 + [tarfile.SYMTYPE, tarfile.DIRTYPE, b"S", b"x"]
                )
                try:
                    tar.addfile(member, io.BytesIO(content))
                except (ValueError, UnicodeError):  # this format has no such name
                    continue
        path.write_bytes(packed.getvalue())

        def opened() -> None:
            with open_bundle(path):
                pass

        timed(counts, "tar", opened)
    assert counts["tar: taken"] == 0
    figures("shaped tars: refused", counts["tar: refused"])


def test_a_sound_one_of_each_is_taken(base: GgufFile, tmp_path: Path) -> None:
    """Or the runs above would prove nothing."""
    check_base_header(base)
    path = write_raw(tmp_path / "a.gguf", LORA, lora_tensors())
    assert AdapterFacts.read(path).rank == 4
    take_in(path, base, family=None)
