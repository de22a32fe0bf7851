"""The device benchmark: how fast a bundle loads, answers and swaps on this machine."""

from edgekit_runtime.bench.measure import BENCH_SCHEMA, bench_prompts, figures, run_bench
from edgekit_runtime.bench.report import compare, read_bench, table

__all__ = ["BENCH_SCHEMA", "bench_prompts", "compare", "figures", "read_bench", "run_bench", "table"]
