"""Statistics of pairs: two answers to the same row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from edgekit.evaluation.scoring import CONFIDENCE

WHOLE = 100.0  # points of a row
FEWEST_ROWS = 6  # below, no outcome of an exact sign test is significant at 5 %, two-sided: 2 / 2**5 > 0.05


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Two-sided exact McNemar test (McNemar 1947): how likely such a difference is if both are right equally often.

    NaN when there is nothing to compare.
    """
    from scipy.stats import binomtest

    pairs = list(zip(one, other, strict=True))
    if not pairs or not all(value in (True, False) for pair in pairs for value in pair):
        return math.nan
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def least_visible(differences: Sequence[float], beyond: float = 0.0) -> float:
    """The smallest mean difference, in points, that these rows could have shown to be more than ``beyond``.

    The larger of two limits.  The spread of the pairs: a mean has to exceed ``beyond`` by 1.96 standard errors.  The
    resolution of the rows: so many of them have to change by as much as those that did (by all of their points where
    none did) that the low end of the interval exceeds it, by the exact binomial distribution.

    Returns:
        100 when not even all rows together could show it; NaN for differences that are no numbers, or none.
    """
    if not differences or not all(map(math.isfinite, differences)) or not math.isfinite(beyond):
        return math.nan
    count = len(differences)
    if count == 1:
        return WHOLE
    error = statistics.stdev(differences) / math.sqrt(count)
    spread = beyond + statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    return min(WHOLE, max(spread, _resolution(differences, beyond)))


def _resolution(differences: Sequence[float], beyond: float) -> float:
    from scipy.stats import binom

    count = len(differences)
    step = statistics.fmean([abs(each) for each in differences if each] or [WHOLE])
    for changed in range(1, count + 1):
        if float(binom.ppf((1 - CONFIDENCE) / 2, count, changed / count)) * step / count > beyond:
            return changed * step / count
    return WHOLE
