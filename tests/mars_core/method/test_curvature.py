import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from mars_core.method.curvature import RIDGE, SHARES, domination, measure, spectrum
from mars_core.model.moments import Moments
from mars_core.objectives.objective import ObjectiveConfig, curvature_of

SEEDS = st.integers(0, 10_000)


BRADLEY_TERRY = ObjectiveConfig().open()


def curvature(margins):
    return curvature_of(BRADLEY_TERRY, margins)


def moments_of(psi, margins):
    moments = Moments()
    moments.add(psi, curvature(margins))
    return moments


def pairs(seed, n, d=4, scale=1.0):
    """Differences ψ [n, d], of another spread in every direction, and their margins under a random w."""
    rng = np.random.default_rng(seed)
    psi = rng.normal(size=(n, d)) * rng.uniform(0.2, 2, size=d) * scale
    return psi, psi @ rng.normal(size=d)


def measured(originals, synthetic, **weight):
    moments, margins = (moments_of(*originals), moments_of(*synthetic)), (originals[1], synthetic[1])
    return measure(*moments, *margins, *map(curvature, margins), **weight)


def test_curvature_is_a_quarter_where_the_model_is_undecided_and_falls_off_both_ways():
    assert curvature([0.0])[0] == 0.25
    assert curvature([math.log(3), -math.log(3)]) == pytest.approx(3 / 16)
    assert 0 < curvature([50.0, -50.0]).max() < 1e-20


@given(SEEDS)
def test_moments_are_the_means_that_a_dense_computation_gives(seed):
    psi, margins = pairs(seed, 30)
    moments = moments_of(psi.astype(np.float32), margins)
    c = expit(margins) * (1 - expit(margins))
    psi = psi.astype(np.float32).astype(np.float64)
    assert moments.mean_curvature == pytest.approx(c.mean())
    np.testing.assert_allclose(moments.second, sum(np.outer(row, row) for row in psi) / 30)
    np.testing.assert_allclose(
        moments.fisher, sum(k * np.outer(row, row) for k, row in zip(c, psi, strict=True)) / 30
    )


def test_pairs_counted_in_parts_are_counted_as_in_one():
    psi, margins = pairs(0, 30)
    whole, parts = moments_of(psi, margins), Moments()
    for part in np.split(np.arange(30), [7, 8, 25]):
        parts.add(psi[part], curvature(margins[part]))
    assert parts.n == whole.n
    np.testing.assert_allclose(parts.fisher, whole.fisher)
    np.testing.assert_allclose(parts.second, whole.second)


def test_counting_leaves_the_features_as_they_were():
    psi, margins = pairs(0, 5)
    before = psi.copy()
    moments_of(psi, margins)
    np.testing.assert_array_equal(psi, before)


def test_moments_are_read_as_they_were_written(tmp_path):
    moments = moments_of(*pairs(0, 9))
    moments.save(tmp_path / "moments.npz")
    loaded = Moments.load(tmp_path / "moments.npz")
    assert (loaded.n, loaded.mean_curvature) == (moments.n, moments.mean_curvature)
    np.testing.assert_array_equal(loaded.second, moments.second)
    np.testing.assert_array_equal(loaded.fisher, moments.fisher)


def test_the_spectrum_counts_eigenvalues_above_the_ridge_and_bounds_the_condition_number_by_it():
    found = spectrum(np.diag([3.0, 1.0, 1e-9]), ridge=1e-3)
    assert found == pytest.approx((4 + 1e-9, 1e-9, 2, 3.001 / 0.001), rel=1e-5)


@given(SEEDS)
def test_lambda_min_is_the_least_value_that_a_direction_gives(seed):
    psi, margins = pairs(seed, 20)
    figures = measured((psi, margins), pairs(seed + 1, 20))
    c = expit(margins) * (1 - expit(margins))
    weighted = np.sqrt(c / 20)[:, None] * psi
    assert figures["originals/lambda_min"] == pytest.approx(
        np.linalg.svd(weighted, compute_uv=False)[-1] ** 2, rel=1e-9
    )


@given(SEEDS)
def test_beta_is_the_least_ratio_of_second_moments_over_all_directions(seed):
    p, q = pairs(seed, 25), pairs(seed + 1, 25, scale=0.7)
    beta = measured(p, q)["beta"]
    # A dense reference by another way: whiten by the originals, then take the least singular value.
    below = p[0].T @ p[0] / 25
    below += RIDGE * np.trace(below) / 4 * np.eye(4)
    whitened = np.linalg.solve(np.linalg.cholesky(below), q[0].T) / 5
    assert beta == pytest.approx(np.linalg.svd(whitened, compute_uv=False)[-1] ** 2, rel=1e-8)
    directions = np.random.default_rng(0).normal(size=(200, 4))
    ratios = ((directions @ q[0].T) ** 2).mean(axis=1) / ((directions @ p[0].T) ** 2).mean(axis=1)
    assert beta <= ratios.min()


def test_synthetic_pairs_that_leave_out_a_direction_give_no_beta():
    psi, margins = pairs(0, 50)
    flat = psi * [1, 1, 1, 0]
    figures = measured((psi, margins), (flat, margins))
    assert figures["beta"] == pytest.approx(0, abs=1e-12)
    assert (figures["originals/rank"], figures["synthetic/rank"]) == (4, 3)


@given(SEEDS)
def test_fewer_synthetic_pairs_than_dimensions_have_no_beta_and_no_rounding_error_for_one(seed):
    (psi_p, sure), (psi_q, _) = pairs(seed, 60, d=24), pairs(seed + 1, 20, d=24)
    figures = measured((psi_p, sure + np.sign(sure)), (psi_q, np.zeros(20)))
    assert (figures["beta"], figures["premises"]) == (0, 0)


def test_a_direction_that_no_original_has_asks_nothing_of_the_synthetic_pairs():
    psi, margins = pairs(0, 50)
    flat = psi * [1, 1, 1, 0]
    assert measured((flat, margins), (2 * flat, margins))["beta"] == pytest.approx(0, abs=1e-9)
    assert domination(np.diag([4.0, 4.0, 1.0]), np.diag([1.0, 1.0, 0.0])) == pytest.approx(4, rel=1e-5)


def test_the_mixture_counts_a_synthetic_pair_by_its_weight_in_the_fit():
    p, q = pairs(0, 40), pairs(1, 20)
    twice = np.concatenate([q[0], q[0]]), np.concatenate([q[1], q[1]])
    weighted = measured(p, q, synthetic_weight=2)
    assert weighted == pytest.approx(measured(p, twice), nan_ok=True)
    assert weighted["alpha"] == 0.5


def test_synthetic_pairs_equal_to_the_originals_change_nothing():
    p = pairs(0, 40)
    figures = measured(p, p)
    assert figures["beta"] == pytest.approx(1, rel=1e-4)
    assert figures["worst_gain"] == pytest.approx(1, rel=1e-4)
    assert figures["mean_gain"] == pytest.approx(1)


@given(SEEDS, st.floats(0.1, 3), st.floats(0.01, 0.99))
def test_where_both_premises_hold_for_every_pair_the_theorem_does(seed, gamma_org, ratio):
    rng = np.random.default_rng(seed)
    (psi_p, _), (psi_q, _) = pairs(seed, 30), pairs(seed + 1, 20)
    sure = rng.choice([-1, 1], 30) * (gamma_org + rng.exponential(size=30))
    unsure = rng.uniform(-1, 1, size=20) * gamma_org * ratio
    figures = measured((psi_p, sure), (psi_q, unsure))
    assert figures["premises"] == 1
    assert figures["worst_gain"] >= figures["bound"] * (1 - 1e-9)


def test_no_bound_is_given_where_a1_holds_for_most_pairs_only():
    (psi_p, _), (psi_q, _) = pairs(0, 100), pairs(1, 100, scale=10)
    sure, unsure = np.full(100, 2.0), np.full(100, 0.1)
    sure[0], unsure[0] = 0.0, 9.0  # one pair on either side
    figures = measured((psi_p, sure), (psi_q, unsure))
    assert [figures[f"a1/{share}"] for share in SHARES] == [0, 1, 1]
    assert figures["premises"] == 0
    assert math.isnan(figures["bound"])


@given(SEEDS)
def test_a_smaller_share_of_pairs_never_makes_the_premises_harder(seed):
    figures = measured(pairs(seed, 40), pairs(seed + 1, 30))
    for whole, part in itertools.pairwise(SHARES):
        assert figures[f"gamma_org/{part}"] >= figures[f"gamma_org/{whole}"]
        assert figures[f"gamma_aug/{part}"] <= figures[f"gamma_aug/{whole}"]
        assert figures[f"gamma_curv/{part}"] >= figures[f"gamma_curv/{whole}"]


def test_gammas_are_reached_by_their_share_of_the_pairs():
    p, q = pairs(0, 37), pairs(1, 23)
    figures = measured(p, q)
    for share in SHARES:
        assert (np.abs(p[1]) >= figures[f"gamma_org/{share}"]).mean() >= share
        assert (np.abs(q[1]) <= figures[f"gamma_aug/{share}"]).mean() >= share


def test_originals_without_any_difference_have_no_beta():
    nothing = np.zeros((5, 4)), np.zeros(5)
    figures = measured(nothing, pairs(0, 9))
    assert math.isnan(figures["beta"])
    assert math.isnan(figures["mean_gain"])
    assert figures["originals/rank"] == 0
