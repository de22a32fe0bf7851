"""Figures of the service in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SPEED_BUCKETS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)

disable_created_metrics()  # type: ignore[no-untyped-call]

# What the worker reports: its name there, ours, what it is, whether it only grows.
_WORKER = (
    ("steps", "engine_steps", "Steps of the engine's loop", True),
    ("reused_tokens", "prompt_tokens_reused", "Tokens of prompts whose KV cache was there already", True),
    ("forced_tokens", "forced_tokens", "Tokens of answers that a schema or grammar let follow alone", True),
    ("drafted_tokens", "drafted_tokens", "Tokens that were decoded before they were chosen", True),
    ("accepted_tokens", "accepted_tokens", "Those of them that were chosen", True),
    ("embedded_tokens", "embedded_tokens", "Tokens of texts that were embedded", True),
    ("adapter_loads", "adapter_loads", "Adapters read into memory", True),
    ("adapter_evictions", "adapter_evictions", "Adapters dropped from memory for others", True),
    ("running", "requests_running", "Requests with a KV sequence", False),
    ("waiting", "requests_waiting", "Requests that wait for one", False),
    ("kv_tokens", "kv_tokens", "Cells of KV cache in use", False),
    ("kv_capacity", "kv_tokens_capacity", "Cells of KV cache", False),
    ("adapters_loaded", "adapters_loaded", "Adapters in memory", False),
    ("adapter_bytes", "adapter_bytes", "Memory of loaded adapters", False),
    ("prefix_bytes", "prefix_bytes", "Memory of cached system prompts", False),
    ("parked_bytes", "parked_bytes", "Memory of chats that wait for their next turn", False),
    ("rss_mb", "worker_rss_mebibytes", "Memory of the engine's process", False),
)


@dataclass
class Connections:
    """Connections of clients: those that are open, and since the start those turned away for one reason or another."""

    open: int = 0
    refused: int = 0  # there were too many
    late: int = 0  # no whole request came in time


class Metrics:
    """What is counted where requests pass, and what the worker says of itself."""

    def __init__(
        self, stats: Callable[[], dict[str, Any]], restarts: Callable[[], int], connections: Connections
    ) -> None:
        """Read the worker's figures through ``stats``, and the others, whenever somebody looks."""
        self._stats, self._restarts, self._connections = stats, restarts, connections
        self._registry = CollectorRegistry()
        self._registry.register(self)
        common: dict[str, Any] = {"registry": self._registry, "namespace": "edgekit"}
        self.requests = Counter("requests", "Requests", ["model", "outcome"], **common)
        self.prompt_tokens = Counter("prompt_tokens", "Tokens of prompts", ["model"], **common)
        self.answer_tokens = Counter("completion_tokens", "Tokens of answers", ["model"], **common)
        self.ttft = Histogram("ttft_seconds", "Time to the first token", ["model"], buckets=TTFT_BUCKETS, **common)
        self.decode = Histogram(
            "decode_tokens_per_second", "Decode speed of a request", ["model"], buckets=SPEED_BUCKETS, **common
        )
        self.busy = Gauge("requests_in_service", "Requests accepted and not yet answered", **common)

    def answered(self, model: str, result: dict[str, Any]) -> None:
        """Count an answer."""
        timings, usage = result.get("timings"), result["usage"]
        self.prompt_tokens.labels(model).inc(usage["prompt_tokens"])
        self.answer_tokens.labels(model).inc(usage["completion_tokens"])
        if timings is None:  # vectors
            return
        self.ttft.labels(model).observe(timings["ttft_ms"] / 1e3)
        if timings["decode_tps"]:
            self.decode.labels(model).observe(timings["decode_tps"])

    def collect(self) -> Iterator[Any]:
        """The worker's own figures and the connections'; called by the registry."""
        stats, connections = self._stats(), self._connections
        yield GaugeMetricFamily("edgekit_connections", "Connections that are open", value=connections.open)
        refused = CounterMetricFamily("edgekit_connections_refused", "Connections turned away", labels=["why"])
        refused.add_metric(["too_many"], connections.refused)
        refused.add_metric(["late"], connections.late)
        yield refused
        yield CounterMetricFamily("edgekit_worker_restarts", "Engine processes started anew", value=self._restarts())
        for key, name, what, grows in _WORKER:
            if key in stats:
                family = CounterMetricFamily if grows else GaugeMetricFamily
                yield family(f"edgekit_{name}", what, value=stats[key])

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)
