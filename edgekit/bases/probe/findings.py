"""What the probe has found of a base, kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.conversion.converters import CONVERSION
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError

if TYPE_CHECKING:
    from edgekit.bases.probe.measure import Measured

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Findings:
    """How the engine computes a tiny random model of a base's configuration.

    Attributes:
        agrees: its logits are torch's.
        kl: largest divergence of a position, in nats; of the model without window where ``window_ignored``.
        window_ignored: it agrees as long as the prompt fits the base's attention window, and not beyond.
        usable: linear layers of the tiny model that take an adapter.
        ignored: those that the engine adapts not at all or in another way than torch.
        placeless: those whose weight no tensor holds as it is.
        routers: those that choose experts.
        unknown: why nothing could be found out, or None.
    """

    agrees: bool = True
    kl: float = 0.0
    window_ignored: bool = False
    usable: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    placeless: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()
    unknown: str | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """What ``targets: all-linear`` doesn't mean, as ends of names that fit no other layer."""
        out = {*self.ignored, *self.placeless, *self.routers}
        kept = [name for name in self.usable if name not in out]
        return tuple(dict.fromkeys(_short(name, kept) for name in sorted(out)))


def findings(folder: Path) -> Findings:
    """Of the text model in a Hugging Face folder; made once for a configuration and these versions."""
    from edgekit.bases.probe.shrunk import shrunk

    try:
        small = shrunk(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except Exception as error:  # of a configuration with rules of its own
        return Findings(unknown=f"no small model can be made of it ({_line(error)})")
    digest = hashlib.sha256(json.dumps([small, CONVERSION, _own_code()], sort_keys=True).encode())
    file = cache_folder("probes") / f"{digest.hexdigest()[:24]}.json"
    made = json.loads(cached(file, lambda target: _make(small, target)).read_text(encoding="utf-8"))
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in made.items()}
    return Findings(**values)


def _make(small: dict[str, Any], file: Path) -> None:
    with stage("checking that the engine computes this base as training does (once)"):
        open_ended = {**small, "sliding_window": None}
        found, *without = _probed([small, open_ended] if small.get("sliding_window") else [small])
        if without:
            found = replace(without[0], window_ignored=True)
    file.write_text(json.dumps(asdict(found)), encoding="utf-8")


def _probed(configs: Sequence[dict[str, Any]]) -> list[Findings]:
    """Of the first configuration; and of the second where that one alone agrees."""
    from edgekit.bases.probe.measure import measure, write_tiny
    from edgekit_exporters.conversion.tensor_map import plain_ggufs

    with tempfile.TemporaryDirectory(prefix="edgekit-probe-") as scratch:
        try:
            tiny = [write_tiny(configs[0], Path(scratch, "0"))]
            for config in configs[1:]:
                with contextlib.suppress(Exception):  # an architecture that has to have a window
                    tiny.append(write_tiny(config, Path(scratch, "1")))
            files = [base for base, _ in plain_ggufs([written.folder for written in tiny])]
            found: list[Findings] = []
            for written, file in zip(tiny, files, strict=True):
                if isinstance(file, str):
                    return found or [Findings(unknown=f"llama.cpp's converter refuses a small model of it ({file})")]
                other = _found(measure(written, file))
                if not found or other.agrees:
                    found.append(other)
                if other.agrees:
                    break
            return found
        except InputError as error:
            return [Findings(unknown=str(error))]
        except Exception as error:  # a shrunk configuration may contradict itself
            return [Findings(unknown=f"no small model can be made of it ({_line(error)})")]


def _found(measured: Measured) -> Findings:
    layers = measured.layers
    return Findings(
        agrees=measured.base.agree,
        kl=measured.base.kl,
        usable=(*layers.honoured, *layers.idle),
        ignored=(*layers.ignored, *layers.wrong),
        placeless=layers.placeless,
        routers=layers.routers,
    )


def fitting(names: Sequence[str], target: str) -> list[str]:
    """Those of ``names`` that an end of a name stands for, as in PEFT."""
    return [name for name in names if name == target or name.endswith(f".{target}")]


def _short(name: str, others: Sequence[str]) -> str:
    """The shortest end of a name that none of the others has."""
    parts = name.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if not fitting(others, end):
            return end
    return name


def _own_code() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
