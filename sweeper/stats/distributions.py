"""The beta, normal and t distributions, from scipy. Imported when first used: most commands need none."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def beta_cdf(a: float, b: float, x: float) -> float:
    """P(X <= x) for X ~ Beta(a, b), shapes above 0, x in [0, 1]."""
    from scipy.special import betainc

    return float(betainc(a, b, x))


def beta_quantile(a: float, b: float, share: float) -> float:
    """The x in [0, 1] with P(X <= x) = share for X ~ Beta(a, b), shapes above 0, share in [0, 1]."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, share))


def beta_quantiles(a: Floats, b: Floats, shares: Floats) -> Floats:
    """`beta_quantile` of arrays that broadcast."""
    from scipy.special import betaincinv

    found: Floats = betaincinv(a, b, shares)
    return found


def normal_cdf(x: Floats) -> Floats:
    """P(X <= x) for a standard normal X, of any shape."""
    from scipy.special import ndtr

    found: Floats = ndtr(x)
    return found


def normal_quantile(shares: Floats) -> Floats:
    """The probit: the inverse of `normal_cdf`, for shares in [0, 1], of any shape."""
    from scipy.special import ndtri

    found: Floats = ndtri(shares)
    return found


def t_quantile(share: float, degrees: float) -> float:
    """The quantile of Student's t, for a share in (0, 1); infinite degrees of freedom give the normal."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(share) if degrees == np.inf else stdtrit(degrees, share))


def t_tail(value: float, degrees: float) -> float:
    """P(T > value) for Student's t; degrees of freedom above 0, infinite ones give the normal."""
    from scipy.special import ndtr, stdtr

    return float(ndtr(-value) if degrees == np.inf else stdtr(degrees, -value))
