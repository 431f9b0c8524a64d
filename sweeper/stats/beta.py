"""The regularised incomplete beta function and the quantiles that rest on it. Standard library alone."""

import math
from functools import lru_cache

_TINY = 1e-300
_TOLERANCE = 1e-15
_MAX_TERMS = 100_000
_BISECTIONS = 60


@lru_cache(maxsize=65536)
def beta_quantile(a: float, b: float, share: float) -> float:
    """The x in [0, 1] with I_x(a, b) = share, by bisection; accurate to 1e-15 in x.

    Args:
        a: First shape, above 0.
        b: Second shape, above 0.
        share: In [0, 1].
    """
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if incomplete_beta(a, b, middle) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@lru_cache(maxsize=65536)
def t_quantile(share: float, degrees: float) -> float:
    """The quantile of Student's t distribution, for a share in (0, 1) and degrees of freedom above 0.

    P(|T| > t) = I_x(degrees / 2, 1 / 2) with x = degrees / (degrees + t^2) (Abramowitz and Stegun 26.7.1,
    26.5.27).
    """
    if share == 0.5:
        return 0.0
    x = beta_quantile(degrees / 2, 0.5, 2 * min(share, 1 - share))
    size = math.sqrt(degrees * (1 - x) / x)
    return size if share > 0.5 else -size


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b).

    The continued fraction of DLMF 8.17.22 (https://dlmf.nist.gov/8.17.E22), which converges quickly
    for x < (a + 1) / (a + b + 2); on the other side the reflection I_x(a, b) = 1 - I_{1-x}(b, a) is
    used.
    """
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - incomplete_beta(b, a, 1 - x)
    log_front = (
        a * math.log(x)
        + b * math.log1p(-x)
        + math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        - math.log(a)
    )
    return min(1.0, math.exp(log_front) * _continued_fraction(a, b, x))


def _continued_fraction(a: float, b: float, x: float) -> float:
    """1 / (1 + d1 / (1 + d2 / ...)) of DLMF 8.17.22, evaluated by the modified Lentz algorithm.

    Thompson and Barnett 1986, doi:10.1016/0021-9991(86)90046-X.
    """
    value, c, d = 1.0, 1.0, 0.0
    for term in range(_MAX_TERMS):
        m = term // 2
        if term == 0:
            numerator = 1.0
        elif term % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 + numerator * d
        d = 1 / (d if abs(d) > _TINY else _TINY)
        c = 1 + numerator / c
        c = c if abs(c) > _TINY else _TINY
        value *= c * d
        if abs(1 - c * d) < _TOLERANCE:
            break
    return value - 1
