"""The beta and t distributions, from scipy. Imported when first used: most commands need neither."""


def beta_cdf(a: float, b: float, x: float) -> float:
    """P(X <= x) for X ~ Beta(a, b), shapes above 0, x in [0, 1]."""
    from scipy.special import betainc

    return float(betainc(a, b, x))


def beta_quantile(a: float, b: float, share: float) -> float:
    """The x in [0, 1] with P(X <= x) = share for X ~ Beta(a, b), shapes above 0, share in [0, 1]."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, share))


def t_quantile(share: float, degrees: float) -> float:
    """The quantile of Student's t, for a share in (0, 1) and degrees of freedom above 0."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))
