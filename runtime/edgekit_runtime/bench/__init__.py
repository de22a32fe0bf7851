"""The device benchmark: how fast a bundle loads, answers and swaps on this machine."""

from edgekit_runtime.bench.measure import BENCH_SCHEMA, bench_prompts, run_bench
from edgekit_runtime.bench.report import compare, read_bench, table
from edgekit_runtime.bench.statistics import figures

__all__ = ["BENCH_SCHEMA", "bench_prompts", "compare", "figures", "read_bench", "run_bench", "table"]
