import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from mars_core.method import selection
from mars_core.method.selection import (
    SelectionConfig,
    SelectionError,
    capped_shares,
    check_budget,
    check_signals,
)
from mars_core.method.strategies.strategy import Signals
from mars_core.objectives.objective import ObjectiveConfig


def allocate(ids, margins, config, capacity, previous=None):
    """Allocate by margins, and by the q of the round before, which is uniform by default."""
    before = np.ones(len(ids)) if previous is None else np.asarray(previous)
    signals = Signals(margins=np.asarray(margins, float), previous=before)
    return pd.DataFrame({"pair_id": ids} | selection.allocate(ids, signals, config, capacity)._asdict())


@st.composite
def problems(draw, largest_margin=30.0, largest_tau=3.0):
    """(pair ids, margins, configuration, capacity) that can be solved."""
    margins = draw(
        st.lists(st.floats(-largest_margin, largest_margin, width=32), min_size=1, max_size=30)
        | st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=30)
    )
    ids = draw(st.permutations([f"pair-{i:02d}" for i in range(len(margins))]))
    capacity = draw(st.integers(1, 40))
    cap = draw(st.none() | st.integers(1, 40))
    config = SelectionConfig(
        margin=draw(st.sampled_from(["signed", "absolute"])),
        tau=draw(st.just(0.0) | st.floats(0, largest_tau)),
        budget=draw(st.integers(1, len(margins) * min(capacity, cap or capacity))),
        cap=cap,
    )
    return ids, margins, config, capacity


def cap_of(config, capacity):
    return min(capacity, config.cap or capacity)


def score(config, margins):
    return np.abs(margins) if config.margin == "absolute" else np.asarray(margins)


@given(problems())
def test_budgets_sum_to_b_and_keep_the_cap(problem):
    allocation = allocate(*problem)
    _, _, config, capacity = problem
    assert allocation["budget"].sum() == config.budget
    assert allocation["budget"].between(0, cap_of(config, capacity)).all()


@given(problems())
def test_q_is_the_normalised_exponential_of_the_score(problem):
    ids, margins, config, _ = problem
    allocation = allocate(*problem)
    weights = np.exp(-config.tau * (score(config, margins) - score(config, margins).min()))
    np.testing.assert_allclose(allocation["probability"], weights / weights.sum(), atol=1e-6)
    assert allocation["pair_id"].tolist() == list(ids)


@given(problems())
def test_a_harder_pair_gets_at_least_the_budget_of_an_easier_one_but_for_rounding(problem):
    _, margins, config, _ = problem
    hardest_first = np.argsort(score(config, margins), kind="stable")
    budget = allocate(*problem)["budget"].to_numpy()[hardest_first]
    assert (np.minimum.accumulate(budget) >= budget - 1).all()


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(problem, random):
    ids, margins, config, capacity = problem
    order = random.sample(range(len(ids)), len(ids))
    once = allocate(*problem).set_index("pair_id")
    again = allocate([ids[i] for i in order], [margins[i] for i in order], config, capacity)
    assert again.set_index("pair_id")["budget"].to_dict() == once["budget"].to_dict()


@given(problems(largest_margin=8.0, largest_tau=2.0))
def test_shares_are_those_of_plain_water_filling(problem):
    _, margins, config, capacity = problem
    logits = -config.tau * score(config, margins).astype(np.float64)
    cap = cap_of(config, capacity)
    shares = capped_shares(logits, config.budget, cap)
    np.testing.assert_allclose(shares, water_filled(np.exp(logits), config.budget, cap), rtol=1e-6, atol=1e-9)


def water_filled(weights, budget, cap):
    """The slow way: share by weight, cap what is over, share the rest again, until nothing is over."""
    full = np.zeros(len(weights), dtype=bool)
    while True:
        left = budget - cap * full.sum()
        shares = np.where(full, cap, left * weights / weights[~full].sum() if not full.all() else 0)
        over = ~full & (shares > cap * (1 + 1e-12))
        if not over.any():
            return shares
        full |= over


@given(problems())
def test_where_no_share_reaches_the_cap_a_budget_is_bq_rounded(problem):
    _, _, config, capacity = problem
    allocation = allocate(*problem)
    shares = config.budget * allocation["probability"]
    assume((shares < cap_of(config, capacity)).all())
    assert (allocation["budget"] - shares).abs().max() < 1


def test_what_a_capped_pair_cannot_take_goes_to_the_others_by_q():
    ids, margins = list("abcd"), [0.0, np.log(2), np.log(2), np.log(4)]  # q is proportional to 4, 2, 2, 1
    free = allocate(ids, margins, SelectionConfig(tau=1, budget=9), capacity=9)
    assert free["budget"].tolist() == [4, 2, 2, 1]
    capped = allocate(ids, margins, SelectionConfig(tau=1, budget=9), capacity=3)
    assert capped["budget"].tolist() == [3, 3, 2, 1]  # 2.4, 2.4 and 1.2 are left to the others


@pytest.mark.parametrize("tau", [0.5, 100.0])
def test_extreme_margins_neither_overflow_nor_starve_the_next_hardest(tau):
    margins = [5e3, -1e4, 1e4, 0.0]
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        allocation = allocate(list("abcd"), margins, SelectionConfig(tau=tau, budget=10), capacity=4)
    assert allocation["budget"].tolist() == [2, 4, 0, 4]
    assert allocation["probability"].tolist() == [0, 1, 0, 0]


def test_a_budget_of_exactly_the_capacity_fills_every_pair():
    margins = np.random.default_rng(0).normal(0, 1e3, 257)
    ids = [str(i) for i in range(257)]
    allocation = allocate(ids, margins, SelectionConfig(tau=100, budget=257 * 35), capacity=35)
    assert (allocation["budget"] == 35).all()


def test_tau_0_spends_the_budget_uniformly_and_ties_go_by_pair_id():
    allocation = allocate(["c", "a", "b"], [-9.0, 0.0, 9.0], SelectionConfig(tau=0, budget=7), capacity=35)
    assert allocation["probability"].tolist() == pytest.approx([1 / 3] * 3)
    assert allocation["budget"].tolist() == [2, 3, 2]


def test_signed_margins_prefer_misranked_pairs_and_absolute_ones_uncertain_pairs():
    margins = [-3.0, 0.0, 3.0]
    signed = allocate(list("abc"), margins, SelectionConfig(margin="signed", tau=1, budget=100), 100)
    absolute = allocate(list("abc"), margins, SelectionConfig(margin="absolute", tau=1, budget=100), 100)
    assert signed["budget"].tolist() == [95, 5, 0]
    assert absolute["budget"].tolist() == [5, 91, 4]


def test_a_large_budget_over_many_pairs_is_spent_to_the_last_unit():
    margins = np.random.default_rng(1).normal(0, 3, 50_000)
    ids = [str(i) for i in range(50_000)]
    allocation = allocate(ids, margins, SelectionConfig(tau=0.5, budget=700_001), capacity=35)
    assert allocation["budget"].sum() == 700_001
    assert allocation["budget"].max() == 35


@pytest.mark.parametrize(("capacity", "cap", "room"), [(3, None, 6), (35, 2, 4)], ids=["capacity", "cap"])
def test_a_budget_above_what_the_pairs_can_take_is_refused_with_both_numbers(capacity, cap, room):
    config = SelectionConfig(budget=room + 1, cap=cap)
    with pytest.raises(SelectionError, match=rf"selection\.budget={room + 1} .*\({room}\)"):
        check_budget(2, config, capacity)
    with pytest.raises(SelectionError, match=str(room)):
        allocate(["a", "b"], [0.0, 1.0], config, capacity)
    check_budget(3, config, capacity)


def test_no_pairs_is_an_error_of_its_own():
    with pytest.raises(SelectionError, match="no pairs"):
        allocate([], [], SelectionConfig(), capacity=35)


@pytest.mark.parametrize(
    "values",
    [{"budget": 0}, {"tau": -0.1}, {"tau": float("inf")}, {"cap": 0}, {"margin": "squared"}],
    ids=str,
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        SelectionConfig(**values)


def test_the_hardest_pairs_are_filled_one_after_the_other():
    margins = [3.0, -2.0, 0.5, -7.0, 0.1]
    config = SelectionConfig(strategy="hardest", budget=7)
    assert list(allocate(list("abcde"), margins, config, capacity=3)["budget"]) == [0, 3, 0, 3, 1]
    uncertain = SelectionConfig(strategy="hardest", margin="absolute", budget=7)
    assert list(allocate(list("abcde"), margins, uncertain, capacity=3)["budget"]) == [0, 1, 3, 0, 3]


def test_pairs_of_one_margin_share_what_the_harder_ones_leave():
    config = SelectionConfig(strategy="hardest", budget=7)
    assert list(allocate(list("abc"), [0.0, 0.0, -1e-6], config, capacity=3)["budget"]) == [2, 2, 3]


def test_boosting_weighs_right_and_wrong_pairs_alike_after_each_round():
    """AdaBoost's weights make the last model no better than a coin."""
    margins = np.array([1.0, 2.0, -1.0, 0.3, 5.0])
    config = SelectionConfig(strategy="boost", budget=5)
    first = allocate(list("abcde"), margins, config, capacity=100)["probability"].to_numpy()
    assert first[margins <= 0].sum() == pytest.approx(0.5)
    margins = np.array([-1.0, 2.0, 1.0, 0.3, 5.0])
    second = allocate(list("abcde"), margins, config, 100, previous=first)["probability"].to_numpy()
    assert second[margins <= 0].sum() == pytest.approx(0.5)
    assert second[2] > second[1]  # it was wrong once, the other never


@pytest.mark.parametrize(
    "margins", [[1.0, 2.0, 3.0], [-1.0, -2.0, 3.0]], ids=["all right", "a coin or worse"]
)
def test_a_model_that_boosting_learns_nothing_from_leaves_the_weights_alone(margins):
    config = SelectionConfig(strategy="boost", budget=3)
    before = np.array([0.5, 0.25, 0.25])
    after = allocate(list("abc"), margins, config, 100, previous=before)["probability"]
    np.testing.assert_allclose(after, before)


def test_boosting_takes_a_tie_for_a_wrong_answer():
    config = SelectionConfig(strategy="boost", budget=4)
    q = allocate(list("abcd"), [0.0, 1.0, 2.0, 3.0], config, 100)["probability"]
    assert q[0] == pytest.approx(0.5)


# Further strategies


def log_q(strategy, **signals):
    given = {name: np.asarray(numbers, float) for name, numbers in signals.items()}
    return SelectionConfig(strategy=strategy, budget=1).open().log_q(Signals(**given))


@pytest.mark.parametrize(
    ("strategy", "signal"), [("uncertainty", "spread"), ("disagreement", "disagreement")]
)
def test_q_grows_in_proportion_to_how_unsure_the_objective_is(strategy, signal):
    assert np.exp(log_q(strategy, **{signal: [0.5, 1.0, 4.0]})) == pytest.approx([0.5, 1, 4])
    assert np.isfinite(log_q(strategy, **{signal: [0.0, 1.0]})).all()


@given(st.integers(0, 10_000))
def test_q_grows_in_proportion_to_the_information_that_one_more_such_pair_adds(seed):
    rng = np.random.default_rng(seed)
    psi, c = rng.normal(size=(12, 3)), rng.uniform(0.01, 0.25, 12)
    information = sum(k * np.outer(row, row) for k, row in zip(c, psi, strict=True))
    before = np.linalg.slogdet(information)[1]
    gains = [
        np.linalg.slogdet(information + k * np.outer(row, row))[1] - before
        for k, row in zip(c, psi, strict=True)
    ]
    assert np.exp(log_q("information", features=psi, curvature=c)) == pytest.approx(gains, rel=1e-3)


def test_fewer_pairs_than_features_have_a_gain_too():
    found = log_q("information", features=np.eye(2, 5) * [[1], [3]], curvature=[0.25, 0.25])
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(found[1], abs=1e-2)  # each is alone in its direction


@pytest.mark.parametrize(
    ("strategy", "objective", "lacks"),
    [
        ("uncertainty", "bradley_terry", "spread"),
        ("disagreement", "ordinal", "disagreement"),
        ("information", "ensemble", "curvature"),
    ],
)
def test_signals_that_an_objective_does_not_give_are_named(strategy, objective, lacks):
    config = SelectionConfig(strategy=strategy, budget=1)
    with pytest.raises(SelectionError, match=f"{strategy} reads the {lacks} .* {objective} does not give"):
        check_signals(config, ObjectiveConfig(name=objective))


@pytest.mark.parametrize(
    ("strategy", "objective"),
    [("uncertainty", "ordinal"), ("disagreement", "ensemble"), ("information", "paraphrase_consistency")],
)
def test_signals_that_an_objective_gives_are_read(strategy, objective):
    check_signals(SelectionConfig(strategy=strategy, budget=1), ObjectiveConfig(name=objective))
