"""What a set of margins says about a reward model, and how sure one may be of it.

A margin is r(x, y+) − r(x, y−) of one preference pair. A pair counts as right when its margin is
greater than zero; equal rewards are wrong, because a model that cannot tell the two has not ranked
them. Every interval is a 95% interval, and every bootstrap is reproducible from its seed and does
not depend on the order of the examples.

A comparison of two models on the same examples speaks of other examples (`paired_difference`,
`paired_score_difference`), a mean over runs of other seeds (`mean_over_seeds`), and the one says
nothing of the other.
"""

import math
from collections.abc import Hashable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

CONFIDENCE = 0.95
ROUNDING = 1e-9
"""Figures of runs that differ by no more than this share of the greatest are equal."""


class Interval(NamedTuple):
    """An estimate with the ends of its 95% interval."""

    value: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """How much more often A is right than B on the same examples.

    `value`, `low` and `high` are accuracy, or weighted score, of A minus that of B; `only_a` and `only_b`
    count the examples that one of the two alone gets right, the only ones the comparison rests on.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int
    only_a: int
    only_b: int
    effect_size: float
    """Cohen's g: A's share of the examples that one model alone gets right, minus one half; of a weighted
    score, each example as the score weights it. From −.5 to .5, and nan where the models never disagree.
    Cohen calls .05 small, .15 medium, .25 large."""


class SeedMean(NamedTuple):
    """A mean over runs that differ in their seed, with the ends of its 95% t-interval.

    The p-value is that of a mean of zero, which is of interest where the values are differences.
    """

    value: float
    low: float
    high: float
    p_value: float
    n: int
    effect_size: float
    """Cohen's d: the mean over the values' sample standard deviation."""


def as_sample(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Values [n] in double precision; `name` is what an error calls them.

    Raises:
        ValueError: they are not one-dimensional, none, or not all finite (nan > 0 is false and would
            pass for a wrong answer).
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"{name} must be a non-empty one-dimensional array, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        index = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise ValueError(f"{name}[{index}] is {sample[index]}; every value must be finite")
    return sample


def accuracy(margins: ArrayLike) -> Interval:
    """Share of margins [n] above zero, with its Wilson interval.

    Raises:
        ValueError: as `as_sample`.
    """
    right = as_sample(margins, "margins") > 0
    value = float(right.mean())
    low, high = proportion_confint(right.sum(), right.size, alpha=1 - CONFIDENCE, method="wilson")
    # Rounding can leave the limits of an all-right or all-wrong sample just short of its share.
    return Interval(value, min(float(low), value), max(float(high), value))


def chance_band(n: int) -> tuple[float, float]:
    """The central 95% of the accuracies that a fair coin reaches on `n` pairs.

    Raises:
        ValueError: `n` is less than one.
    """
    if n < 1:
        raise ValueError(f"a chance band needs at least one pair, got n = {n}")
    low, high = stats.binom.interval(CONFIDENCE, n, 0.5)
    return float(low) / n, float(high) / n


def signal_to_noise(margins: ArrayLike) -> float:
    """SNR of MARS v1: the mean of the margins [n] over their population standard deviation.

    It is nan where all margins are equal, a single one included: there is no noise to compare with.

    Raises:
        ValueError: as `as_sample`.
    """
    sample = as_sample(margins, "margins")
    if np.ptp(sample) == 0:
        return float("nan")
    return float(sample.mean() / sample.std())


def stratified_bootstrap(
    values: ArrayLike,
    strata: ArrayLike,
    weights: Mapping[str, float],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Weighted mean of the strata's means, with its percentile bootstrap interval.

    Every draw resamples each stratum on its own, to its own size. A stratum of equal values, or of
    one value, therefore adds nothing to the width of the interval; where all are such, its ends are nan, for
    examples that show no spread do not say how far the score is certain.

    Args:
        values: [n] any finite numbers; booleans give the interval of a weighted accuracy.
        strata: [n] the stratum of each value.
        weights: the weight of every stratum that occurs in `strata`, and of no other; only their
            proportions matter.
        draws: bootstrap replicates.
        seed: of the resampling.

    Raises:
        ValueError: the values are empty or not finite, the lengths differ, the strata are not those
            of `weights`, or a weight is negative or all are zero.
    """
    value, replicates = _stratified_replicates(values, strata, weights, draws, seed)
    ends = _percentiles(replicates) if np.ptp(replicates) > ROUNDING else (math.nan, math.nan)
    return Interval(value, *ends)


def paired_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, *, draws: int = 2000, seed: int = 0
) -> PairedDifference:
    """Compare two models by which of the same examples each gets right.

    The interval is the percentile bootstrap over examples, both answers kept together; the p-value
    is McNemar's exact two-sided test, 1 where the models never disagree.

    Args:
        correct_a: [n] booleans, or zeros and ones.
        correct_b: [n] the same examples in the same order.
        draws: bootstrap replicates.
        seed: of the resampling.

    Raises:
        ValueError: the arrays are empty, differ in length, or hold anything but zeros and ones.
    """
    gains, only_a, only_b = _gains(correct_a, correct_b)
    value, means = _resampled_means(gains, draws, np.random.default_rng(seed))
    p_value = float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)
    g = _cohens_g(only_a, only_b)
    return PairedDifference(value, *_percentiles(means), p_value, gains.size, only_a, only_b, g)


def paired_accuracy_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, weights: ArrayLike | None = None
) -> Interval:
    """Accuracy of A minus accuracy of B on the same examples, with an interval that few examples keep wide.

    Bonett and Price's adjusted Wald interval (2012). A bootstrap of examples on which the two never disagree
    has no width, however few they are; a decision must not rest on that. Theirs adds an example that A alone
    gets right and one that B alone does. Of weighted examples these two weigh Σw² / Σw, and the part of each
    in the variance is as its own weight squared.

    Args:
        correct_a: [n] booleans, or zeros and ones.
        correct_b: [n] the same examples in the same order.
        weights: [n] what each example weighs in both accuracies; by default the same.

    Raises:
        ValueError: as `paired_difference`; a weight is negative, or all are zero.
    """
    gains, *_ = _gains(correct_a, correct_b)
    weighs = np.ones_like(gains) if weights is None else as_sample(weights, "weights")
    if weighs.min() < 0 or not weighs.any():
        raise ValueError("weights must not be negative and not all zero")
    typical = float(weighs @ weighs / weighs.sum())
    share = np.append(weighs, [typical, typical])
    share /= share.sum()
    with_two = np.append(gains, [1.0, -1.0])
    centre = float(share @ with_two)
    deviation = math.sqrt(float(share**2 @ (with_two - centre) ** 2))
    half_width = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * deviation
    value = float(weighs @ gains / weighs.sum())
    return Interval(value, max(-1.0, centre - half_width), min(1.0, centre + half_width))


def paired_score_difference(
    credits_a: ArrayLike,
    credits_b: ArrayLike,
    strata: ArrayLike,
    weights: Mapping[str, float],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two models by their weighted scores on the same examples, such as RewardBench totals.

    `only_a` and `only_b` count the examples on which one of the two earns more than the other. The interval
    is that of `stratified_bootstrap`, both answers to an example kept together. McNemar's test knows no
    weights, so the p-value is that of the test which it is a case of: how often the weighted gains sum up to
    as much if each one's sign is drawn at random. It is 1 where the models never disagree.

    Args:
        credits_a: [n] what A earns on each example, such as 1 where it is right.
        credits_b: [n] the same examples in the same order.
        strata: [n] the stratum of each example.
        weights: as of `stratified_bootstrap`; the scores are weighted means of the strata's mean credits.
        draws: bootstrap replicates, and at most so many draws of signs.
        seed: of the resampling.

    Raises:
        ValueError: the credits differ in number, and as `stratified_bootstrap`.
    """
    gains = _of_the_same_examples(credits_a, credits_b)
    only_a, only_b = int((gains > 0).sum()), int((gains < 0).sum())
    value, low, high = stratified_bootstrap(gains, strata, weights, draws=draws, seed=seed)
    present, place, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    of_example = (np.array([weights[stratum] for stratum in present]) / sizes)[place]
    g = _cohens_g(float(of_example[gains > 0].sum()), float(of_example[gains < 0].sum()))
    p_value = _sign_flip(of_example * gains, draws, seed)
    return PairedDifference(value, low, high, p_value, gains.size, only_a, only_b, g)


def mean_over_seeds(values: ArrayLike) -> SeedMean:
    """The mean of one figure over runs [n] of different seeds, with its t-interval.

    A bootstrap over a few seeds covers far less than it says; the t-interval keeps its word from two seeds
    on, if with great width. Of one seed only the value is known, and the rest is nan. So it is where all
    values are equal, of whatever size: the spread between seeds is not known from seeds that show none.

    Raises:
        ValueError: as `as_sample`.
    """
    sample = as_sample(values, "values")
    mean = float(sample.mean())
    if np.ptp(sample) <= ROUNDING * np.abs(sample).max():
        return SeedMean(mean, math.nan, math.nan, math.nan, sample.size, math.nan)
    deviation = float(sample.std(ddof=1))
    test = stats.ttest_1samp(sample, 0.0)
    low, high = test.confidence_interval(CONFIDENCE)
    return SeedMean(mean, float(low), float(high), float(test.pvalue), sample.size, mean / deviation)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values of a family of comparisons: below α, each may be claimed at level α for all.

    Raises:
        ValueError: there is none, or one is not between 0 and 1.
    """
    given = as_sample(list(p_values.values()), "p_values")
    if given.min() < 0 or given.max() > 1:
        raise ValueError(f"p-values lie between 0 and 1, got {dict(p_values)}")
    adjusted = multipletests(given, method="holm")[1]
    return {name: float(p_value) for name, p_value in zip(p_values, adjusted, strict=True)}


def pairwise_summary(margins: ArrayLike) -> dict[str, float]:
    """The numbers logged for a set of pairs with margins [n]; `ties` is the share of exact zeros.

    Raises:
        ValueError: as `as_sample`.
    """
    sample = as_sample(margins, "margins")
    right = accuracy(sample)
    chance_low, chance_high = chance_band(sample.size)
    return {
        "accuracy": right.value,
        "accuracy_low": right.low,
        "accuracy_high": right.high,
        "chance_low": chance_low,
        "chance_high": chance_high,
        "mean_margin": float(sample.mean()),
        "snr": signal_to_noise(sample),
        "ties": float((sample == 0).mean()),
        "n": float(sample.size),
    }


def _sign_flip(gains: NDArray[np.float64], draws: int, seed: int) -> float:
    """Two-sided p-value of a sum of gains [n] under random signs; of few gains all signs are tried."""
    there = gains[gains != 0]
    if there.size < 2:  # one gain is as great with either sign
        return 1.0
    test = stats.permutation_test(
        (there,), np.sum, permutation_type="samples", vectorized=True, n_resamples=draws, rng=seed
    )
    return float(test.pvalue)


def _cohens_g(only_a: float, only_b: float) -> float:
    return only_a / (only_a + only_b) - 0.5 if only_a + only_b else math.nan


def _gains(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[NDArray[np.float64], int, int]:
    """What A is worth above B on each example (−1, 0 or 1), and how often each alone is right."""
    gains = _of_the_same_examples(correct_a, correct_b)
    if not np.isin([np.asarray(correct_a), np.asarray(correct_b)], [0, 1]).all():
        raise ValueError("correct_a and correct_b must hold only zeros and ones")
    return gains, int((gains > 0).sum()), int((gains < 0).sum())


def _of_the_same_examples(one: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """The first values minus the second ones."""
    a, b = as_sample(one, "values of A"), as_sample(other, "values of B")
    if a.size != b.size:
        raise ValueError(f"a paired comparison needs the same examples, got {a.size} and {b.size}")
    return a - b


def _stratified_replicates(
    values: ArrayLike, strata: ArrayLike, weights: Mapping[str, float], draws: int, seed: int
) -> tuple[float, NDArray[np.float64]]:
    """The weighted mean of the strata's means, and of `draws` resamples of each stratum."""
    sample, labels = as_sample(values, "values"), np.asarray(strata)
    if labels.shape != sample.shape:
        raise ValueError(f"{sample.size} values need as many strata, got shape {labels.shape}")
    present: set[Hashable] = set(labels.tolist())
    if present != set(weights):
        differing = sorted(map(str, present ^ set(weights)))
        raise ValueError(f"strata and weights must name the same strata; only one does: {differing}")
    total_weight = sum(weights.values())
    if min(weights.values()) < 0 or total_weight <= 0:
        raise ValueError(f"weights must not be negative and not all zero, got {dict(weights)}")
    rng = np.random.default_rng(seed)
    value, replicates = 0.0, np.zeros(draws)
    for stratum in sorted(weights):
        mean, means = _resampled_means(sample[labels == stratum], draws, rng)
        value += weights[stratum] / total_weight * mean
        replicates += weights[stratum] / total_weight * means
    return value, replicates


def _resampled_means(
    sample: NDArray[np.float64], draws: int, rng: np.random.Generator
) -> tuple[float, NDArray[np.float64]]:
    """The mean of a sample and of `draws` resamples of it.

    A resample is a multinomial count of the distinct values, so right-or-wrong data cost two counts
    a draw, however many examples there are; memory is draws × distinct values.
    """
    distinct, counts = np.unique(sample, return_counts=True)
    resampled = rng.multinomial(sample.size, counts / sample.size, size=draws)
    return float(counts @ distinct) / sample.size, resampled @ distinct / sample.size


def _percentiles(replicates: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)
