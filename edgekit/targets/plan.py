"""`edgekit plan`: will this run on that device, and how fast?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.project import DECODE_BUDGET
from edgekit.targets.adapter_cost import TargetCost, target_costs, within
from edgekit.targets.subject import Subject
from edgekit_devices.adapter_cost import decode_share
from edgekit_devices.fit import MIB, Advice, Plan, advise, plan
from edgekit_devices.profiles import Profile
from edgekit_devices.speed import Estimate
from edgekit_runtime.engines.memory import default_context
from edgekit_runtime.errors import UsageError

PLAN_SCHEMA = "edgekit.plan/1"


@dataclass(frozen=True)
class Planned:
    """A plan with what it was made for.

    ``costs`` is what adapters of usual targets cost, ``shares`` decode under known adapters and stacks, both as shares
    of the bare base's speed; ``budget`` is the share that advice goes by.
    """

    subject: Subject
    profile: Profile
    plan: Plan
    advice: Advice
    costs: Sequence[TargetCost] = ()
    shares: Mapping[str, Estimate] = field(default_factory=dict)
    budget: float = DECODE_BUDGET

    def as_dict(self) -> dict[str, Any]:
        """The JSON document (schema ``edgekit.plan/1``): MiB, seconds, tokens and tokens per second."""
        memory = self.plan.memory
        return {
            "schema": PLAN_SCHEMA,
            "subject": {key: value for key, value in asdict(self.subject).items() if key not in ("matrices", "shapes")},
            "device": asdict(self.profile),
            "fits": memory.fits,
            **asdict(self.plan),
            "memory": asdict(memory) | {"needed": memory.needed, "fits": memory.fits},
            "best": asdict(self.advice),
            "adapter_costs": [asdict(cost) for cost in self.costs],
            "adapter_shares": {name: asdict(share) for name, share in self.shares.items()},
        }


def make_plan(
    profile: Profile,
    subject: Subject,
    *,
    context: int | None = None,
    prompt_tokens: int = 256,
    parallel: int = 1,
    service: bool = False,
    min_decode_tps: float = 0.0,
    budget: float = DECODE_BUDGET,
) -> Planned:
    """Plan ``subject`` on a device.

    Args:
        profile: the device.
        subject: what is to be run.
        context: tokens of a request; what the runtime takes when None: the base's own, but at most 4096, or 2048 where
            several are answered at once.
        prompt_tokens: length of the prompt that speeds are for.
        parallel: requests that are answered at once.
        service: with the HTTP service's own process.
        min_decode_tps: what the advised quantisation has to reach.
        budget: share of the base's decode speed that advised targets have to keep.

    Raises:
        UsageError: counts below 1, or a prompt longer than the context.
    """
    if context is None:
        context = default_context(subject.model.context, parallel)
    if min(context, prompt_tokens, parallel, profile.memory_mb) < 1 or not min_decode_tps >= 0:
        raise UsageError("tokens, requests and memory have to be at least 1, a speed at least 0", "raise them")
    if prompt_tokens >= context:
        raise UsageError(f"a prompt of {prompt_tokens} tokens needs a longer context than {context}", "raise --context")
    settings: dict[str, Any] = {
        "context": context,
        "prompt_tokens": prompt_tokens,
        "adapters": list(subject.adapters.values()),
        "parallel": parallel,
        "service": service,
        "reader": subject.reader,
    }
    return Planned(
        subject,
        profile,
        plan(profile, subject.model, **settings),
        advise(profile, subject.model, subject.others, min_decode_tps=min_decode_tps, **settings),
        target_costs(profile, subject.model, subject.matrices, prompt_tokens),
        _shares(profile, subject, prompt_tokens),
        budget,
    )


def _shares(profile: Profile, subject: Subject, position: int) -> dict[str, Estimate]:
    """Decode under each adapter and each stack whose shapes are known."""
    together = {name: (name,) for name in subject.shapes} | dict(subject.stacks)
    return {
        name: decode_share(profile, subject.model, [subject.shapes[part] for part in parts], position)
        for name, parts in together.items()
        if set(parts) <= set(subject.shapes)
    }


def report(planned: Planned) -> str:
    """The plan as text, with how it was computed."""
    subject, profile, made = planned.subject, planned.profile, planned.plan
    memory, model = made.memory, subject.model
    speed = made.decode_tps.basis
    lines = [
        f"{subject.name} ({model.quantization}) on {profile.title}",
        "",
        f"{'FITS' if memory.fits else 'DOES NOT FIT'}: needs {memory.needed:.0f} MiB of {memory.available:.0f} MiB "
        f"({profile.memory_mb} MiB less {profile.os_memory_mb} MiB for the system)",
        f"  base {memory.base:.0f}, KV cache {memory.kv_cache:.0f} "
        f"(context {made.context}{f', {subject.kv_cache}' if subject.kv_cache else ''}), "
        f"adapters {memory.adapters:.1f} ({len(subject.adapters)}), runtime {memory.runtime:.0f}"
        + (f", images {memory.images:.0f} (projector, its buffers, kept embeddings)" if subject.reader else ""),
        *_droppable(memory.droppable),
        f"storage {made.storage_mb:.0f} MiB with the runtime; cold load about {made.load_s:.0f} s ({profile.storage})",
        "",
        f"expected for a prompt of {made.prompt_tokens} tokens ({speed}):",
        f"  prefill {_range(made.prefill_tps, 'tokens/s')}",
        f"  first token after {_range(made.ttft_s, 's')}",
        f"  decode {_range(made.decode_tps, 'tokens/s')}",
        "",
        f"best --quantize: {planned.advice.quantization or 'none fits'}",
        f"longest --context as it is: {planned.advice.context or 'none fits'}",
        "files: "
        + ", ".join(f"{name} {other.file_bytes / MIB:.0f}" for name, other in subject.others.items())
        + " MiB",
        *_costs(planned),
        "",
        "decode reads weights and cache once a token; prefill is two operations a weight and token, and attention;",
        f"figures of this device: {_source(profile)}",
    ]
    return "\n".join(lines)


def _costs(planned: Planned) -> list[str]:
    """What adapters cost in decode."""
    from edgekit_runtime.bench.report import aligned  # its room loads the engine

    lines = [
        f"decode with {name}: {share.value:.2f} of the bare base's (estimated: {share.low:.2f} to {share.high:.2f})"
        for name, share in planned.shares.items()
    ]
    if planned.costs:
        ranks = list(planned.costs[0].shares)
        table = [["adapter costs", "matrices", *(f"rank {rank}" for rank in ranks)]]
        for cost in planned.costs:
            shares = (f"{share.value:.2f}" for share in cost.shares.values())
            table.append([cost.targets, str(cost.matrices), *shares])
        fitting = within(planned.costs, planned.budget)
        lines += [
            "decode with an adapter as a share of the bare base's, by targets (estimated):",
            *(f"  {line}" for line in aligned(table)),
            f"  {planned.budget:g} or more: {', '.join(fitting) or 'none of these'}; or targets: auto",
        ]
    return ["", *lines] if lines else []


def _droppable(size: float) -> list[str]:
    if not size:
        return []
    return [f"  the system may show {size:.0f} MiB more: parts of the file, dropped when memory gets short"]


def _source(profile: Profile) -> str:
    from edgekit_devices.speed import speed_of

    speed = speed_of(profile)
    return f"{speed.decode_gbs:.3g} GB/s, {speed.prefill_gflops:.3g} GFLOP/s, {speed.basis}: {speed.source}"


def _range(estimate: Estimate, unit: str) -> str:
    return f"{estimate.value:.3g} {unit} ({estimate.low:.3g} to {estimate.high:.3g})"
