"""What a set of margins says about a reward model, and how sure one may be of it.

A margin is r(x, y+) − r(x, y−) of one preference pair. A pair counts as right when its margin is
greater than zero; equal rewards are wrong, because a model that cannot tell the two has not ranked
them. Every interval is a 95% interval unless another confidence is asked for, and every bootstrap is
reproducible from its seed and does not depend on the order of the examples.

Examples that share a prompt are no independent evidence: a model that knows a subject is right about all
pairs of its prompt. Functions that take `clusters`, a label of each example, treat the examples of one label
as one draw: twenty pairs of a prompt then count for about as much as they tell, between one pair and twenty.
Without labels, or with a label of its own for each, every example is a draw.

A comparison of two models on the same examples speaks of other examples (`paired_difference`,
`paired_score_difference`), a mean over runs of other seeds (`mean_over_seeds`), and the one says
nothing of the other.
"""

import math
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

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


def accuracy(
    margins: ArrayLike, clusters: ArrayLike | None = None, confidence: float = CONFIDENCE
) -> Interval:
    """Share of margins [n] above zero, with its Wilson interval.

    Of clustered pairs the interval is that of as many independent ones as tell as much: n over the design
    effect, the variance of the share over clusters divided by that of n independent pairs (Korn and Graubard,
    1998). It is at least 1, and where all pairs are right, or all wrong, so that nothing shows how alike the
    pairs of a cluster are, as great as if they were all alike.

    Raises:
        ValueError: as `as_sample`, or there is not a label for each margin.
    """
    right = as_sample(margins, "margins") > 0
    value = float(right.mean())
    n = right.size / _design_effect(right.astype(np.float64), _places(clusters, right.size))
    low, high = proportion_confint(value * n, n, alpha=1 - confidence, method="wilson")
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


def auc(scores: ArrayLike, positive: ArrayLike) -> float:
    """P(a positive example scores more than a negative one), equal scores one half; nan without either."""
    is_positive = np.asarray(positive, dtype=bool)
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = stats.rankdata(np.asarray(scores, np.float64))[is_positive].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def stratified_bootstrap(
    values: ArrayLike,
    strata: ArrayLike,
    weights: Mapping[str, float],
    *,
    clusters: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Weighted mean of the strata's means, with its percentile bootstrap interval.

    Every draw resamples each stratum on its own, to its own size; clusters are drawn whole, those of the same
    strata among each other. A stratum of equal values, or of
    one value, therefore adds nothing to the width of the interval; where all are such, its ends are nan, for
    examples that show no spread do not say how far the score is certain.

    Args:
        values: [n] any finite numbers; booleans give the interval of a weighted accuracy.
        strata: [n] the stratum of each value.
        weights: the weight of every stratum that occurs in `strata`, and of no other; only their
            proportions matter.
        clusters: [n] the label of each value's cluster; by default each is its own.
        draws: bootstrap replicates.
        seed: of the resampling.

    Raises:
        ValueError: the values are empty or not finite, the lengths differ, the strata are not those
            of `weights`, or a weight is negative or all are zero.
    """
    value, replicates = _stratified_replicates(values, strata, weights, clusters, draws, seed)
    ends = _percentiles(replicates) if np.ptp(replicates) > ROUNDING else (math.nan, math.nan)
    return Interval(value, *ends)


def paired_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two models by which of the same examples each gets right.

    The interval is the percentile bootstrap over examples, or clusters of them, both answers kept together;
    the p-value is McNemar's exact two-sided test, 1 where the models never disagree. Of clusters it is that
    of the test which McNemar's is a case of: how often the gains of clusters sum up to as much if the sign of
    each cluster's is drawn at random.

    Args:
        correct_a: [n] booleans, or zeros and ones.
        correct_b: [n] the same examples in the same order.
        clusters: [n] the label of each example's cluster; by default each is its own.
        draws: bootstrap replicates.
        seed: of the resampling.

    Raises:
        ValueError: the arrays are empty, differ in length, or hold anything but zeros and ones.
    """
    gains, only_a, only_b = _gains(correct_a, correct_b)
    one_stratum = np.zeros(gains.size), {0.0: 1.0}
    value, means = _stratified_replicates(gains, *one_stratum, clusters, draws, seed)
    places = _places(clusters, gains.size)
    if places.max() + 1 == gains.size:
        p_value = float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)
    else:
        p_value = _sign_flip(_sums(places, gains), draws, seed)
    g = _cohens_g(only_a, only_b)
    return PairedDifference(value, *_percentiles(means), p_value, gains.size, only_a, only_b, g)


def paired_accuracy_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Accuracy of A minus accuracy of B on the same examples, with an interval that few examples keep wide.

    Bonett and Price's adjusted Wald interval (2012). A bootstrap of examples on which the two never disagree
    has no width, however few they are; a decision must not rest on that. Theirs adds an example that A alone
    gets right and one that B alone does. Of weighted examples these two weigh Σw² / Σw, and the part of each
    in the variance is as its own weight squared. A cluster is one example, which weighs as much as all of its
    own, and whose gain is their weighted mean.

    Args:
        correct_a: [n] booleans, or zeros and ones.
        correct_b: [n] the same examples in the same order.
        weights: [n] what each example weighs in both accuracies; by default the same.
        clusters: [n] the label of each example's cluster; by default each is its own.
        confidence: of the interval.

    Raises:
        ValueError: as `paired_difference`; a weight is negative, or all are zero.
    """
    gains, *_ = _gains(correct_a, correct_b)
    weighs = np.ones_like(gains) if weights is None else as_sample(weights, "weights")
    if weighs.min() < 0 or not weighs.any():
        raise ValueError("weights must not be negative and not all zero")
    value = float(weighs @ gains / weighs.sum())
    places = _places(clusters, gains.size)
    sums = _sums(places, weighs * gains)
    weighs = _sums(places, weighs)
    gains = np.divide(sums, weighs, out=np.zeros_like(sums), where=weighs > 0)
    typical = float(weighs @ weighs / weighs.sum())
    share = np.append(weighs, [typical, typical])
    share /= share.sum()
    with_two = np.append(gains, [1.0, -1.0])
    centre = float(share @ with_two)
    deviation = math.sqrt(float(share**2 @ (with_two - centre) ** 2))
    half_width = float(stats.norm.ppf((1 + confidence) / 2)) * deviation
    return Interval(value, max(-1.0, centre - half_width), min(1.0, centre + half_width))


def paired_score_difference(
    credits_a: ArrayLike,
    credits_b: ArrayLike,
    strata: ArrayLike,
    weights: Mapping[str, float],
    *,
    clusters: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two models by their weighted scores on the same examples, such as RewardBench totals.

    `only_a` and `only_b` count the examples on which one of the two earns more than the other. The interval
    is that of `stratified_bootstrap`, both answers to an example kept together. McNemar's test knows no
    weights, so the p-value is that of the test which it is a case of: how often the weighted gains sum up to
    as much if each one's sign, or each cluster's, is drawn at random. It is 1 where the models never
    disagree.

    Args:
        credits_a: [n] what A earns on each example, such as 1 where it is right.
        credits_b: [n] the same examples in the same order.
        strata: [n] the stratum of each example.
        weights: as of `stratified_bootstrap`; the scores are weighted means of the strata's mean credits.
        clusters: [n] the label of each example's cluster; by default each is its own.
        draws: bootstrap replicates, and at most so many draws of signs.
        seed: of the resampling.

    Raises:
        ValueError: the credits differ in number, and as `stratified_bootstrap`.
    """
    gains = _of_the_same_examples(credits_a, credits_b)
    only_a, only_b = int((gains > 0).sum()), int((gains < 0).sum())
    value, low, high = stratified_bootstrap(gains, strata, weights, clusters=clusters, draws=draws, seed=seed)
    present, place, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    of_example = (np.array([weights[stratum] for stratum in present]) / sizes)[place]
    g = _cohens_g(float(of_example[gains > 0].sum()), float(of_example[gains < 0].sum()))
    p_value = _sign_flip(_sums(_places(clusters, gains.size), of_example * gains), draws, seed)
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


def pairwise_summary(margins: ArrayLike, clusters: ArrayLike | None = None) -> dict[str, float]:
    """The numbers logged for a set of pairs with margins [n]; `ties` is the share of exact zeros.

    Raises:
        ValueError: as `accuracy`.
    """
    sample = as_sample(margins, "margins")
    right = accuracy(sample, clusters)
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


def _places(clusters: ArrayLike | None, n: int) -> NDArray[np.intp]:
    """Numbers of the clusters of n examples, from 0 on; by default each example is its own cluster."""
    if clusters is None:
        return np.arange(n)
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        raise ValueError(f"{n} examples need as many labels of clusters, got shape {labels.shape}")
    return np.unique(labels, return_inverse=True)[1]


def _sums(places: NDArray[np.intp], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of the values [n] of each cluster."""
    return np.bincount(places, values).astype(np.float64)


def _design_effect(values: NDArray[np.float64], places: NDArray[np.intp]) -> float:
    """How many times the variance of the mean of zeros and ones [n] is that of independent ones."""
    n, sizes = values.size, _sums(places, np.ones_like(values))
    greatest = float(sizes @ sizes) / n
    mean = float(values.mean())
    independent = mean * (1 - mean) / n
    if independent == 0 or sizes.size < 2:
        return greatest
    of_clusters = _sums(places, values - mean)
    small_sample = sizes.size / (sizes.size - 1) * (n - 1) / n
    effect = small_sample * float(of_clusters @ of_clusters) / n**2 / independent
    return min(max(effect, 1.0), greatest)


def _stratified_replicates(
    values: ArrayLike,
    strata: ArrayLike,
    weights: Mapping[Any, float],
    clusters: ArrayLike | None,
    draws: int,
    seed: int,
) -> tuple[float, NDArray[np.float64]]:
    """The weighted mean of the strata's means, and of `draws` resamples.

    A resample is a multinomial count of the distinct clusters, told by the sums and sizes of their parts in
    the strata, so right-or-wrong data cost two counts a draw, however many examples there are; memory is
    draws × distinct clusters.
    """
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
    names, columns = np.unique(labels, return_inverse=True)
    share = np.array([weights[name] for name in names.tolist()]) / total_weight
    places = _places(clusters, sample.size)
    shape = (places.max() + 1, names.size)
    sums, sizes = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (places, columns), sample)
    np.add.at(sizes, (places, columns), 1)
    value = float(share @ (sums.sum(axis=0) / sizes.sum(axis=0)))

    rng = np.random.default_rng(seed)
    resampled_sums, resampled_sizes = np.zeros((draws, names.size)), np.zeros((draws, names.size))
    kinds, kind_of = np.unique(sizes > 0, axis=0, return_inverse=True)
    for kind in reversed(range(len(kinds))):  # of clusters in one stratum each, the first stratum comes first
        within = np.flatnonzero(kinds[kind])
        rows = kind_of == kind
        parts = np.hstack([sums[rows][:, within], sizes[rows][:, within]])
        distinct, counts = np.unique(parts, axis=0, return_counts=True)
        drawn = rng.multinomial(rows.sum(), counts / rows.sum(), size=draws)
        resampled_sums[:, within] += drawn @ distinct[:, : within.size]
        resampled_sizes[:, within] += drawn @ distinct[:, within.size :]
    return value, (resampled_sums / resampled_sizes) @ share


def _percentiles(replicates: NDArray[np.float64]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail])
    return float(low), float(high)
