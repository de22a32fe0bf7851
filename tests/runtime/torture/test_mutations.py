"""Files with random damage: none is taken, none does harm."""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgekit_runtime import InputError
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.manifest import Manifest
from edgekit_runtime.formats.signing import make_key, sign
from edgekit_runtime.store import Store
from tests.goods import Goods
from tests.service import serving


def damage(content: bytes, chosen: random.Random) -> bytes:
    """Bits flipped, bytes overwritten by extremes, parts cut, doubled or moved; near the start most often."""
    data = bytearray(content)
    for _ in range(chosen.randint(1, 4)):
        if not data:
            break
        near = chosen.random() < 0.7
        at = chosen.randrange(min(len(data), 2048) if near else len(data))
        length = chosen.choice([1, 2, 4, 8, 64])
        match chosen.randrange(5):
            case 0:
                data[at] ^= 1 << chosen.randrange(8)
            case 1:
                data[at : at + length] = chosen.choice([b"\xff", b"\x00", b"\x7f"]) * length
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] or b"\x00"
            case 4:
                del data[max(at, 1) :]
    return bytes(data) if bytes(data) != content else content[:-1]


def test_no_damaged_file_is_taken_and_nothing_crashes(
    goods: Goods, tmp_path: Path, torture: bool, figures: Callable[[str, object], None]
) -> None:
    count = 10_000 if torture else 240
    chosen = random.Random(11)
    key = tmp_path / "key"
    public = make_key(key)
    bundle = tmp_path / "bundle"
    shutil.copytree(goods.bundle, bundle)
    sign(bundle, key)
    adapter = Path(shutil.copy(goods.two, tmp_path / "two.gguf"))
    signature = sign(adapter, key)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(bundle, arcname="bundle")
    store = Store(tmp_path / "store", create=True)
    store.trust(public)
    store.install(bundle)
    whole = store.bundle().manifest
    manifest = bundle / "manifest.json"
    good_manifest = manifest.read_bytes()
    trial = tmp_path / "trial.gguf"
    shutil.copy(signature, trial.with_name(trial.name + ".sig"))
    trial_tar = tmp_path / "trial.tar"
    taken = refused = unchanged = 0
    with serving(store.root) as service:
        for number in range(count):
            kind = ("gguf", "manifest", "tar", "service")[number % 4]
            try:
                if kind == "gguf":
                    trial.write_bytes(damage(adapter.read_bytes(), chosen))
                    for read in (read_gguf, AdapterFacts.read):
                        with suppress(InputError):
                            read(trial)
                    store.install(trial)
                elif kind == "manifest":
                    manifest.write_bytes(damage(good_manifest, chosen))
                    with suppress(InputError):
                        Manifest.parse(manifest.read_bytes(), where="trial")
                    store.install(bundle)
                elif kind == "tar":
                    trial_tar.write_bytes(damage(packed.getvalue(), chosen))
                    store.install(trial_tar)
                else:
                    trial.write_bytes(damage(adapter.read_bytes(), chosen))
                    body = {"lora_name": "two", "lora_path": str(trial), "load_inplace": True}
                    answer = service.http.post("/v1/load_lora_adapter", json=body)
                    assert answer.status_code in (400, 404), answer.text
                    raise InputError("refused")
                # Damage between a tar's members changes nothing that is signed.
                harmless = kind == "tar" and store.bundle().manifest == whole
                unchanged, taken = unchanged + harmless, taken + (not harmless)
            except InputError:
                refused += 1
        assert service.status()["restarts"] == 0
        assert service.text()
    figures("damaged files: refused", refused)
    figures("damaged files: taken", taken)
    figures("damaged tars whose content is whole, taken", unchanged)
    assert (taken, refused + unchanged) == (0, count)
    assert store.bundle().manifest == whole


def test_a_service_that_trusts_everybody_survives_damaged_adapters(
    goods: Goods, tmp_path: Path, torture: bool, figures: Callable[[str, object], None]
) -> None:
    """Without signatures damage to weights can't be seen; damage to anything else must be."""
    count = 500 if torture else 12
    chosen = random.Random(12)
    trial = tmp_path / "trial.gguf"
    loaded = 0
    with serving(goods.bundle) as service:
        before = service.text()
        for _ in range(count):
            trial.write_bytes(damage(goods.two.read_bytes(), chosen))
            body = {"lora_name": "two", "lora_path": str(trial), "load_inplace": True}
            answer = service.http.post("/v1/load_lora_adapter", json=body)
            assert answer.status_code in (200, 400, 404), answer.text
            if answer.status_code == 200:
                loaded += 1
                service.text(model="two")
        assert service.text() == before
        assert service.status()["restarts"] == 0
    figures("damaged adapters without signatures: loaded, without harm", f"{loaded} of {count}")
