import random
import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mars_core.data.samples import preferences
from mars_core.files import digest
from mars_core.generation import Answer, GenerationConfig, GenerationStore, Generator
from mars_core.method.augmentation import (
    HOPELESS_SAMPLES,
    AugmentationConfig,
    AugmentationError,
    Parent,
    Variants,
    augment,
    capacity,
    cells,
    room,
    samples_for,
    variants_for,
)
from mars_core.method.guards import Guards, GuardsConfig
from mars_core.method.semantics import Embedder, SemanticsConfig, cosine_distances

COLUMNS = [
    *("synthetic_id", "parent_id", "prompt", "chosen", "rejected"),
    *("prompt_variant", "chosen_variant", "rejected_variant", "generator"),
]
configs = st.builds(
    AugmentationConfig, scheme=st.sampled_from(["minimal", "grid"]), max_paraphrases=st.integers(1, 7)
)


@st.composite
def affordable(draw):
    """A configuration and a budget that one pair can take."""
    config = draw(configs)
    return config, draw(st.integers(1, capacity(config, "pairs")))


class GoodParaphraser:
    """Gives every sample asked for: the text with a new number. `spoil` may change or drop what it says."""

    name = "scripted"
    free = False

    def __init__(self, spoil=lambda request, texts: texts):
        self.spoil = spoil
        self.asked = []

    def key(self, request):
        return digest(request.role, request.text, request.n, request.draw)

    def answers(self, requests):
        for index, request in enumerate(requests):
            self.asked.append(request)
            said = [f"{request.text} ({request.draw}.{sample})" for sample in range(request.n)]
            texts = tuple(self.spoil(request, said))
            yield index, Answer(self.key(request), texts, ("stop",) * len(texts), 5, 12, 0.0)


class MeaningsOfTopics:
    """An embedder for which a text means its first word."""

    texts_cut = 0

    def distances(self, texts, others):
        differ = [text.split()[0] != other.split()[0] for text, other in zip(texts, others, strict=True)]
        return np.array(differ, dtype=np.float32)


@pytest.fixture
def made(tmp_path):
    """Augment pairs with these budgets: the result, and what the backend was asked."""

    def run(budgets, config=None, spoil=lambda request, texts: texts, min_similarity=0.8, q=None, **options):
        logs = np.log(q or [1] * len(budgets))
        parents = [
            Parent(f"pair-{row:02d}", f"Ask {row}", f"Yes {row}", f"No {row}", budget, log_q)
            for row, (budget, log_q) in enumerate(zip(budgets, logs, strict=True))
        ]
        backend = GoodParaphraser(spoil)
        guards = Guards(GuardsConfig(min_similarity=min_similarity), MeaningsOfTopics())
        with GenerationStore(tmp_path / digest(budgets, str(config), str(options))) as store:
            result = augment(
                parents, Generator(backend, store), guards, config or AugmentationConfig(), **options
            )
        return Made(result, guards.dropped), backend.asked

    return run


class Made:
    """What was made, its tables as frames."""

    def __init__(self, result, dropped):
        self.pairs, self.variants = result.pairs.to_pandas(), result.variants.to_pandas()
        self.moved, self.shortfall, self.tokens = result.moved, result.shortfall, result.tokens
        self.surplus_tokens = result.surplus_tokens
        self.dropped = dropped


def by_parent(result):
    return dict(result.pairs["parent_id"].value_counts())


# How many variants


@given(affordable())
def test_no_fewer_variants_would_give_the_budget(case):
    config, budget = case
    for chosen_first in (True, False):
        wanted = variants_for(budget, config, chosen_first=chosen_first)
        of_the_text_itself = 1 if config.scheme == "grid" else 0
        chosen, rejected = wanted.chosen - of_the_text_itself, wanted.rejected - of_the_text_itself
        needed = budget + 1 - of_the_text_itself
        total = chosen + rejected
        assert chosen * rejected >= needed
        assert all(c * (total - 1 - c) < needed for c in range(total))
        assert max(wanted) <= 1 + config.max_paraphrases
        assert (chosen >= rejected) if chosen_first else (rejected >= chosen)


@given(configs, st.tuples(*[st.integers(1, 8)] * 3))
def test_the_room_of_some_variants_is_the_number_of_their_cells(config, numbers):
    assert room(Variants(*numbers), config) == len(list(cells(Variants(*numbers), config)))


def test_the_grid_takes_no_text_as_it_is():
    with pytest.raises(ValueError, match=r"augmentation\.min_characters=0"):
        AugmentationConfig(scheme="grid", min_characters=60)


def test_short_texts_are_taken_as_they_are(made):
    config = AugmentationConfig(min_characters=6)  # "Ask 0" and "No 0" are shorter, "Yes 10" is not
    result, asked = made([0] * 10 + [1], config)
    assert {request.role for request in asked} == {"paraphrase_chosen"}
    assert len(result.pairs) == 1


def test_the_budget_of_a_pair_whose_responses_are_too_short_moves_before_anything_is_asked(made):
    config = AugmentationConfig(min_characters=6)
    result, asked = made([2] + [0] * 9 + [1, 1], config)
    assert by_parent(result) == {"pair-10": 2, "pair-11": 2}
    assert [request.n for request in asked] == [2, 2]
    assert (result.moved, result.shortfall) == (2, 0)


def test_two_pairs_are_bought_with_two_paraphrases_of_one_response():
    assert variants_for(2, AugmentationConfig(), chosen_first=True) == Variants(1, 3, 1)
    assert variants_for(2, AugmentationConfig(), chosen_first=False) == Variants(1, 1, 3)
    assert variants_for(3, AugmentationConfig(), chosen_first=True) == Variants(1, 2, 2)


@given(affordable(), st.booleans())
def test_the_cells_hold_the_budget_and_use_every_variant(case, chosen_first):
    config, budget = case
    wanted = variants_for(budget, config, chosen_first=chosen_first)
    some = list(cells(wanted, config))
    assert len(some) >= budget
    assert len({(c, r) for _, c, r in some}) == len(some)
    assert (0, 0) not in {(c, r) for _, c, r in some}
    first = 1 if config.scheme == "grid" else 0
    for part, numbers in zip(wanted, zip(*some[:budget], strict=True), strict=True):
        assert set(numbers) <= set(range(first, part))
        assert set(range(1, part)) <= set(numbers)


def test_capacities_are_those_of_the_paper():
    minimal, grid = AugmentationConfig(), AugmentationConfig(scheme="grid")
    assert [capacity(config, "pairs") for config in (minimal, grid)] == [35, 25]
    assert capacity(minimal, "paraphrases") == 10


def test_prompts_cycle_by_the_sum_of_the_variants():
    assert list(cells(Variants(2, 2, 2), AugmentationConfig())) == [(1, 0, 1), (1, 1, 0), (0, 1, 1)]
    grid = list(cells(Variants(3, 3, 3), AugmentationConfig(scheme="grid")))
    assert grid == [(1, 1, 1), (2, 1, 2), (2, 2, 1), (1, 2, 2)]
    assert list(cells(Variants(1, 3, 3), AugmentationConfig(scheme="grid"))) == []


# Spending


def test_good_paraphrases_give_exact_budgets_for_the_fewest_texts(made):
    budgets = [35, 8, 3, 1, 0, 2, 11]
    result, asked = made(budgets, label="r1-")
    assert by_parent(result) == {f"pair-{row:02d}": budget for row, budget in enumerate(budgets) if budget}
    assert (result.moved, result.shortfall, result.dropped) == (0, 0, {})
    assert list(result.pairs) == COLUMNS
    assert result.pairs["synthetic_id"].is_unique
    assert result.pairs["synthetic_id"].str.startswith("r1-pair-").all()
    assert not result.pairs.duplicated(["prompt", "chosen", "rejected"]).any()
    assert (result.pairs["chosen"] != result.pairs["rejected"]).all()
    assert set(result.pairs["generator"]) == {"scripted"}

    wanted = [variants_for(budget, AugmentationConfig(), chosen_first=True) for budget in budgets if budget]
    assert sum(request.n for request in asked) == sum(sum(variants) - 3 for variants in wanted)
    assert len(result.variants) == sum(request.n for request in asked)
    assert len(asked) <= 3 * len(wanted)
    assert not any(request.prompt == "Ask 4" for request in asked)


def test_every_synthetic_text_can_be_followed_to_its_request(made):
    result, asked = made([35, 4])
    assert list(result.variants) == ["parent_id", "part", "variant", "text", "request"]
    assert set(result.variants["request"]) == {GoodParaphraser().key(request) for request in asked}
    bought = result.variants.set_index(["parent_id", "part", "variant"])["text"]
    for pair in result.pairs.itertuples():
        for part in ("prompt", "chosen", "rejected"):
            number = getattr(pair, f"{part}_variant")
            if number:
                assert getattr(pair, part) == bought[pair.parent_id, part, number]
            else:
                assert re.fullmatch(r"\w+ \d+", getattr(pair, part))


def test_which_side_gets_the_odd_variant_is_balanced(made):
    result, asked = made([1] * 40)
    sides = Counter(request.role for request in asked)
    assert sides["paraphrase_chosen"] + sides["paraphrase_rejected"] == 40
    assert min(sides["paraphrase_chosen"], sides["paraphrase_rejected"]) >= 15
    assert len(result.pairs) == 40


def test_the_grid_takes_no_originals(made):
    budgets = [25, 7, 1]
    result, asked = made(budgets, AugmentationConfig(scheme="grid"))
    assert list(by_parent(result).values()) == budgets
    assert (result.pairs[["prompt_variant", "chosen_variant", "rejected_variant"]] > 0).all(axis=None)
    whole = result.pairs[result.pairs["parent_id"] == "pair-00"]
    assert len(set(whole["chosen"])) == len(set(whole["rejected"])) == len(set(whole["prompt"])) == 5
    assert sum(request.n for request in asked) == 15 + (3 + 6) + 3


@pytest.mark.parametrize(
    ("scheme", "pairs"), [("minimal", [35, 11, 5, 3, 1, 0]), ("grid", [25, 6, 2, 1, 1, 0])]
)
def test_a_budget_of_paraphrases_buys_that_many_responses(made, scheme, pairs):
    budgets = [10, 5, 3, 2, 1, 0]
    result, asked = made(budgets, AugmentationConfig(scheme=scheme), unit="paraphrases")
    assert [by_parent(result).get(f"pair-{row:02d}", 0) for row in range(6)] == pairs
    assert result.shortfall == 0
    responses = Counter()
    for request in asked:
        responses[request.prompt] += request.n * (request.role != "paraphrase_prompt")
    alone = 2 if scheme == "grid" else 1  # one paraphrase makes no pair there
    assert [responses[f"Ask {row}"] for row in range(6)] == [10, 5, 3, 2, alone, 0]


# What filters take


def test_texts_that_are_dropped_are_drawn_again(made):
    def first_draws_are_bad(request, texts):
        return {0: ["Lost meaning"] * len(texts), 1: [request.text] * len(texts)}.get(request.draw, texts)

    exact = AugmentationConfig(max_overasking=1)
    result, asked = made([3, 8], exact, spoil=first_draws_are_bad)
    assert list(by_parent(result).values()) == [8, 3]
    assert {request.draw for request in asked} == {0, 1, 2}
    assert (result.moved, result.shortfall) == (0, 0)
    assert set(result.dropped) == {"meaning lost", "copy"}


def test_a_paraphrase_equal_to_the_other_response_is_dropped(made):
    def the_other(request, texts):
        if request.role == "paraphrase_rejected" and request.draw == 0:
            return [f"  {request.chosen.upper()} "] * len(texts)
        return texts

    result, _ = made([8], spoil=the_other, min_similarity=-1)
    assert result.dropped == {"not distinct": 2}
    assert (result.pairs["chosen"].str.lower() != result.pairs["rejected"].str.strip().str.lower()).all()


def hopeless(*rows):
    """Of some pairs no paraphrase keeps the meaning."""

    def spoil(request, texts):
        return ["Lost meaning"] * len(texts) if int(request.prompt.split()[1]) in rows else texts

    return spoil


def test_what_one_pair_cannot_use_goes_to_the_others_in_proportion_to_q(made):
    budgets = [6, 9, 30, 4, 0]
    result, asked = made(budgets, spoil=hopeless(1), q=[6, 9, 2, 1, 5])
    assert by_parent(result) == {"pair-00": 12, "pair-02": 32, "pair-03": 5}
    assert (result.moved, result.shortfall) == (9, 0)
    assert (
        max(request.draw for request in asked if request.prompt == "Ask 1") == AugmentationConfig().draws - 1
    )


def test_moved_budget_moves_on_where_it_is_not_used_either(made):
    def runs_dry(request, texts):
        row = int(request.prompt.split()[1])
        if row == 0:
            return ["Lost meaning"] * len(texts)
        return texts if row == 2 or request.draw == 0 else []

    result, _ = made([10, 3, 2], spoil=runs_dry)
    assert by_parent(result)["pair-01"] == 3
    assert by_parent(result)["pair-02"] == 12
    assert (result.moved, result.shortfall) == (10, 0)


def test_what_moved_beyond_what_a_pair_can_take_goes_on_by_q(made):
    result, _ = made([9, 4, 4, 4], spoil=hopeless(0), q=[1, 100, 2, 1], cap=6)
    assert by_parent(result) == {"pair-01": 6, "pair-02": 6, "pair-03": 6}
    assert (result.moved, result.shortfall) == (6, 3)


def test_a_uniform_budget_moves_by_at_most_one_each(made):
    result, _ = made([2] * 12, spoil=hopeless(0, 7))
    assert sorted(by_parent(result).values()) == [2] * 6 + [3] * 4


def test_moved_budget_keeps_the_cap_and_the_rest_is_the_shortfall(made):
    result, _ = made([10, 3, 2, 0], spoil=hopeless(0), cap=5)
    assert by_parent(result) == {"pair-01": 5, "pair-02": 5}
    assert (result.moved, result.shortfall) == (5, 5)


class InterruptionError(Exception):
    """What ends a run in the middle."""


class Interrupted(GoodParaphraser):
    """Ends the run after some answers."""

    def __init__(self, spoil, answers):
        super().__init__(spoil)
        self.left = answers

    def answers(self, requests):
        for item in super().answers(requests):
            self.left -= 1
            if self.left < 0:
                raise InterruptionError
            yield item


@st.composite
def campaigns(draw):
    """Configuration, budgets of some pairs, and a generator that gives too little, the same, or bad."""
    config = AugmentationConfig(
        scheme=draw(st.sampled_from(["minimal", "grid"])),
        max_paraphrases=3,
        draws=draw(st.integers(1, 3)),
        max_overasking=draw(st.sampled_from([1, 2, 3])),
    )
    most = capacity(config, "pairs")
    budgets = draw(st.lists(st.integers(0, most), min_size=1, max_size=6).filter(any))
    fates = draw(
        st.lists(st.sampled_from(["good", "good", "good", "lost", "same", "none"]), min_size=3, max_size=17)
    )

    return config, budgets, fated(fates)


def fated(fates):
    """What becomes of each sample follows from its request; `both` is the same text for either response."""

    def spoil(request, texts):
        said = {"lost": "Lost meaning", "same": request.text, "both": f"Larks both {request.draw}"}
        place = len(request.text) + 3 * request.draw
        of_samples = [fates[(place + sample) % len(fates)] for sample in range(len(texts))]
        return [said.get(fate, text) for text, fate in zip(texts, of_samples, strict=True) if fate != "none"]

    return spoil


def campaign(config, budgets, backend, folder):
    parents = [
        Parent(f"{row}", f"Ask {'x' * row}", f"Yes {row}", f"No {row}", budget)
        for row, budget in enumerate(budgets)
    ]
    guards = Guards(GuardsConfig(), MeaningsOfTopics())
    with GenerationStore(folder) as store:
        return parents, augment(parents, Generator(backend, store), guards, config)


@settings(max_examples=40)
@given(campaigns())
def test_every_unit_of_budget_is_made_moved_or_short(tmp_path_factory, case):
    config, budgets, spoil = case
    most = capacity(config, "pairs")
    backend = GoodParaphraser(spoil)
    try:
        parents, result = campaign(config, budgets, backend, tmp_path_factory.mktemp("store"))
    except AugmentationError:
        reject()
    pairs = result.pairs.to_pandas()
    made = dict(pairs["parent_id"].value_counts())
    assert len(pairs) + result.shortfall == sum(budgets)
    assert 0 <= result.moved <= sum(budgets)
    assert all(count <= most for count in made.values())
    assert all(budgets[int(parent)] for parent in made)
    assert {request.text.split()[-1] for request in backend.asked if request.role == "paraphrase_chosen"} <= {
        str(row) for row, budget in enumerate(budgets) if budget
    }
    assert pairs["synthetic_id"].is_unique
    assert not pairs.duplicated(["parent_id", "chosen", "rejected"]).any()
    assert (pairs["chosen"] != pairs["rejected"]).all()
    if result.shortfall:  # whoever has room left has run dry
        assert all(parent.exhausted or parent.budget in (0, most) for parent in parents)
    if not result.moved:
        assert all(made.get(str(row), 0) <= budget for row, budget in enumerate(budgets))


@settings(max_examples=25)
@given(campaigns(), st.integers(0, 20))
def test_a_run_that_was_interrupted_asks_for_nothing_twice_and_ends_as_if_it_was_not(
    tmp_path_factory, case, answers
):
    config, budgets, spoil = case
    whole, rest = GoodParaphraser(spoil), GoodParaphraser(spoil)
    try:
        _, undisturbed = campaign(config, budgets, whole, tmp_path_factory.mktemp("undisturbed"))
    except AugmentationError:
        reject()
    folder, first = tmp_path_factory.mktemp("store"), Interrupted(spoil, answers)
    with suppress(InterruptionError):
        campaign(config, budgets, first, folder)
    _, resumed = campaign(config, budgets, rest, folder)
    keys = [whole.key(request) for request in [*first.asked[:answers], *rest.asked]]
    assert sorted(keys) == sorted(map(whole.key, whole.asked))
    assert resumed.pairs.to_list() == undisturbed.pairs.to_list()
    assert resumed.tokens == undisturbed.tokens


class InterruptedBackwards(Interrupted):
    """Answers the last request first."""

    def answers(self, requests):
        for index, answer in super().answers(requests[::-1]):
            yield len(requests) - 1 - index, answer


def test_pairs_that_share_a_response_leave_each_other_what_they_asked_for_before_an_interruption(tmp_path):
    def spend(backend, folder):
        parents = [Parent("0", "Ask", "Yes", "No 0", 3), Parent("1", "Ask", "Yes", "No 1", 8)]
        guards = Guards(GuardsConfig(), MeaningsOfTopics())
        with GenerationStore(tmp_path / folder) as store:
            return augment(parents, Generator(backend, store), guards, AugmentationConfig())

    whole = GoodParaphraser()
    undisturbed = spend(whole, "undisturbed")
    assert [request.n for request in whole.asked if request.role == "paraphrase_chosen"] == [1, 2]
    with pytest.raises(InterruptionError):
        spend(InterruptedBackwards(lambda request, texts: texts, 2), "interrupted")
    resumed = spend(GoodParaphraser(), "interrupted")
    assert resumed.variants.to_list() == undisturbed.variants.to_list()


class Fails(GoodParaphraser):
    """Fails of some requests, by their number; `paid` are the others."""

    def __init__(self, spoil, numbers):
        super().__init__(spoil)
        self.numbers = numbers
        self.paid = []

    def answers(self, requests):
        for index, answer in super().answers(requests):
            if len(self.asked) - 1 in self.numbers:
                yield index, replace(answer, texts=(), finish_reasons=(), error="HTTP 500: overloaded")
            else:
                self.paid.append(requests[index])
                yield index, answer


@settings(max_examples=60)
@given(campaigns(), st.sets(st.integers(0, 20), min_size=1, max_size=5))
def test_a_run_whose_requests_failed_asks_for_no_sample_twice_when_they_recover(
    tmp_path_factory, case, failing
):
    config, budgets, spoil = case
    first, recovered = Fails(spoil, failing), GoodParaphraser(spoil)
    folder = tmp_path_factory.mktemp("store")
    for backend in (first, recovered):
        with suppress(AugmentationError):
            campaign(config, budgets, backend, folder)
    assert not [
        (old, new)
        for old in first.paid
        for new in recovered.asked
        if old.n >= new.n and replace(old, n=new.n) == new
    ]


def test_what_a_free_generator_makes_does_not_depend_on_what_others_asked_it_for(tmp_path):
    class Free(GoodParaphraser):
        """Writes other texts where more are asked for, as rules do."""

        free = True

        def answers(self, requests):
            for index, answer in super().answers(requests):
                texts = tuple(f"{text} of {requests[index].n}" for text in answer.texts)
                yield index, replace(answer, texts=texts)

    config = AugmentationConfig()
    _, alone = campaign(config, [3], Free(lambda request, texts: texts), tmp_path / "alone")
    campaign(config, [8], Free(lambda request, texts: texts), tmp_path / "shared")
    _, after = campaign(config, [3], Free(lambda request, texts: texts), tmp_path / "shared")
    assert after.pairs.to_list() == alone.pairs.to_list()


def half_lost(request, texts):
    return [text if number % 2 else "Lost meaning" for number, text in enumerate(texts)]


def test_more_is_asked_for_where_texts_were_dropped_and_never_trained_on(made):
    result, asked = made([3] * 2 + [8] * 10, spoil=half_lost)
    assert (len(result.pairs), result.moved, result.shortfall) == (86, 0, 0)
    assert by_parent(result) == {f"pair-{row:02d}": 3 if row < 2 else 8 for row in range(12)}
    # Of each text one is missing when half of its first samples, or the only one, were dropped.
    assert {request.n for request in asked if request.draw} == {2}
    assert len(result.variants) == 2 * 2 + 10 * 5


def test_what_was_dropped_of_one_text_changes_nothing_in_what_is_asked_of_another(made):
    def first_row_lost(request, texts):
        return half_lost(request, texts) if request.text == "Yes 0" else texts

    _, spoilt = made([8] * 5, spoil=first_row_lost)
    _, others = made([8] * 5, label="good-")
    assert [request for request in spoilt if request.text != "Yes 0"] == [
        request for request in others if request.text != "Yes 0"
    ]


def test_a_text_of_which_no_sample_is_any_good_is_given_up_and_the_other_response_makes_up_for_it(made):
    def never(request, texts):
        return ["Lost meaning"] * len(texts) if request.role == "paraphrase_chosen" else texts

    patient = AugmentationConfig(draws=10, max_paraphrases=8)
    result, asked = made([8], patient, spoil=never)
    assert (len(result.pairs), result.shortfall) == (8, 0)
    tries = [request.n for request in asked if request.role == "paraphrase_chosen"]
    assert sum(tries[:-1]) < HOPELESS_SAMPLES <= sum(tries)


def test_a_text_that_gave_a_single_good_sample_is_not_given_up(made):
    def once(request, texts):
        if request.role != "paraphrase_chosen" or request.draw == 3:
            return texts
        return [*texts[: request.draw == 0], *["Lost meaning"] * (len(texts) - (request.draw == 0))]

    result, asked = made([8], AugmentationConfig(draws=5), spoil=once)
    tries = {request.draw: request.n for request in asked if request.role == "paraphrase_chosen"}
    assert (sorted(tries), sum(tries.values()) > HOPELESS_SAMPLES) == ([0, 1, 2, 3], True)
    assert (len(result.pairs), result.shortfall) == (8, 0)


def test_tokens_of_good_texts_that_no_pair_needs_are_the_surplus(made):
    def first_lost(request, texts):
        return ["Lost meaning"] * len(texts) if request.draw == 0 else texts

    none, _ = made([3])
    one_of_two_twice, asked = made([3], spoil=first_lost, label="r1-")
    assert none.surplus_tokens == 0
    assert [request.n for request in asked] == [1, 1, 2, 2]
    assert one_of_two_twice.surplus_tokens == pytest.approx(12)


def test_over_asking_follows_the_drop_rate_and_has_a_limit():
    assert [samples_for(4, 99, kept, 3.0) for kept in (99, 89, 79, 49, 0)] == [4, 4, 5, 8, 12]
    assert samples_for(1, 99, 79, 3.0) == 1
    assert samples_for(1, 99, 49, 3.0) == 2
    assert samples_for(5, 0, 0, 3.0) == 5
    assert samples_for(5, 99, 0, 1.0) == 5


def test_texts_beyond_the_plan_make_up_for_missing_ones_of_the_other_response(made):
    def one_rejected(request, texts):
        if request.role == "paraphrase_rejected":
            return texts[:1] if request.draw == 0 else []
        # The first are lost, so that 6 chosen ones are asked for where 2 are missing.
        lost = request.role == "paraphrase_chosen" and request.draw == 0
        return ["Lost meaning"] * len(texts) if lost else texts

    result, asked = made([8], spoil=one_rejected)
    assert len(result.pairs) == 8
    assert result.pairs["rejected_variant"].max() == 1
    assert result.pairs["chosen_variant"].max() > 2
    assert max(request.draw for request in asked) == 1


def test_a_response_that_cannot_be_paraphrased_leaves_the_budget_to_the_other(made):
    def mute(request, texts):
        return [] if request.role == "paraphrase_rejected" else texts

    result, asked = made([3], spoil=mute)
    assert (len(result.pairs), result.shortfall) == (3, 0)
    assert sorted(result.pairs["chosen_variant"]) == [1, 2, 3]
    assert [request.draw for request in asked if request.role == "paraphrase_rejected"] == [0, 1]


def test_a_request_that_failed_is_sent_again_as_it_was(tmp_path):
    class FailsOnce(GoodParaphraser):
        def answers(self, requests):
            for index, answer in super().answers(requests):
                if len(self.asked) == 2:
                    answer = replace(answer, texts=(), finish_reasons=(), error="HTTP 500: overloaded")
                yield index, answer

    backend = FailsOnce()
    with GenerationStore(tmp_path) as store:
        guards = Guards(GuardsConfig(), MeaningsOfTopics())
        parents = [Parent("a", "Ask 1", "Yes 1", "No 1", 8)]
        result = augment(parents, Generator(backend, store), guards, AugmentationConfig())
    assert len(result.pairs) == 8
    assert [(request.role, request.n, request.draw) for request in backend.asked] == [
        ("paraphrase_prompt", 1, 0),
        ("paraphrase_chosen", 2, 0),
        ("paraphrase_rejected", 2, 0),
        ("paraphrase_chosen", 2, 0),
    ]


class Refuses(GoodParaphraser):
    """Takes no request of some roles."""

    def __init__(self, *roles):
        super().__init__()
        self.roles = roles

    def answers(self, requests):
        for index, answer in super().answers(requests):
            if requests[index].role in self.roles:
                answer = replace(answer, texts=(), finish_reasons=(), error="HTTP 400: no", refused=True)
            yield index, answer


# Any order of arrival


class AnyOrder(GoodParaphraser):
    """Answers whichever request chance picks of those that there are; each request in `fails` fails once.

    After `most` answers it ends the run.
    """

    def __init__(self, spoil, seed=None, fails=(), most=None):
        super().__init__(spoil)
        self.chance = random.Random(seed) if seed is not None else None
        self.fails, self.failed = fails, set()
        self.most = most
        self.answered = []

    def answers(self, requests):
        waiting, known = [], 0
        while waiting or known < len(requests):
            waiting += range(known, len(requests))
            known = len(requests)
            if len(self.answered) == self.most:
                raise InterruptionError
            index = waiting.pop(self.chance.randrange(len(waiting)) if self.chance else 0)
            ((_, answer),) = super().answers([requests[index]])
            self.answered.append(answer.key)
            if self.name_of(requests[index]) in self.fails and answer.key not in self.failed:
                self.failed.add(answer.key)
                answer = replace(answer, texts=(), finish_reasons=(), error="HTTP 500: overloaded")
            yield index, answer

    def name_of(self, request):
        return request.role, request.text, request.draw


@st.composite
def families(draw):
    """A campaign whose pairs have prompts and responses in common, and the requests that fail at first."""
    config, _, _ = draw(campaigns())
    fate = st.sampled_from(["good", "good", "both", "both", "lost", "none"])
    spoil = fated(draw(st.lists(fate, min_size=3, max_size=17)))
    few = st.integers(0, 2)
    texts = draw(st.lists(st.tuples(few, few, few), min_size=1, max_size=6))
    budgets = [draw(st.integers(0, capacity(config, "pairs"))) for _ in texts]
    requests = st.tuples(
        st.sampled_from(["paraphrase_chosen", "paraphrase_rejected"]),
        st.sampled_from(["Larks may 0", "Larks may 1", "Larks can 0", "Larks can 1"]),
        st.integers(0, 1),
    )
    return config, list(zip(texts, budgets, strict=True)), spoil, draw(st.sets(requests, max_size=3))


class Bought(NamedTuple):
    """All that a run of augmentation says."""

    pairs: list
    variants: list
    moved: int
    shortfall: int
    tokens: int
    surplus_tokens: float
    dropped: dict
    dropped_tokens: dict
    shown: list


def bought(config, family, backend, folder):
    parents = [
        Parent(f"{row}", f"Ask {prompt}", f"Larks may {chosen}", f"Larks can {rejected}", budget, row / 7)
        for row, ((prompt, chosen, rejected), budget) in enumerate(family)
    ]
    guards = Guards(GuardsConfig(), MeaningsOfTopics())
    with GenerationStore(folder) as store:
        try:
            made = augment(parents, Generator(backend, store), guards, config)
        except AugmentationError:
            reject()
    return Bought(
        made.pairs.to_list(),
        made.variants.to_list(),
        made.moved,
        made.shortfall,
        made.tokens,
        round(made.surplus_tokens, 6),
        dict(guards.dropped),
        {reason: round(tokens, 6) for reason, tokens in guards.dropped_tokens.items()},
        guards.shown().fillna(-1).to_numpy().tolist(),
    )


@settings(max_examples=40)
@given(families(), st.integers(0, 99))
def test_the_order_in_which_answers_arrive_changes_nothing(tmp_path_factory, case, seed):
    config, family, spoil, fails = case
    in_order, shuffled = AnyOrder(spoil, None, fails), AnyOrder(spoil, seed, fails)
    first = bought(config, family, in_order, tmp_path_factory.mktemp("in-order"))
    assert bought(config, family, shuffled, tmp_path_factory.mktemp("shuffled")) == first
    assert sorted(shuffled.answered) == sorted(in_order.answered)


@settings(max_examples=40)
@given(families(), st.integers(0, 99), st.integers(0, 20))
def test_a_run_that_was_stopped_ends_as_any_other_order_does_and_asks_for_nothing_twice(
    tmp_path_factory, case, seed, most
):
    config, family, spoil, _ = case
    undisturbed = bought(config, family, AnyOrder(spoil), tmp_path_factory.mktemp("undisturbed"))
    folder = tmp_path_factory.mktemp("stopped")
    stopped, resumed = AnyOrder(spoil, seed, most=most), AnyOrder(spoil, seed + 1)
    with suppress(InterruptionError):
        bought(config, family, stopped, folder)
    assert bought(config, family, resumed, folder) == undisturbed
    assert not set(stopped.answered) & set(resumed.answered)


@pytest.mark.parametrize("part", ["prompt", "chosen", "rejected"])
def test_a_request_that_was_refused_is_never_sent_again_and_the_other_response_makes_up_for_it(
    tmp_path, part
):
    backend = Refuses(role := f"paraphrase_{part}")
    _, result = campaign(AugmentationConfig(max_paraphrases=8), [8], backend, tmp_path)
    assert (len(result.pairs), result.shortfall) == (8, 0)
    assert [request.role for request in backend.asked].count(role) == 1


def test_the_meaning_of_a_prompt_is_that_of_its_last_turn(tmp_path):
    prompt = "Human: Larks?\n\nAssistant: Birds.\n\nHuman: Singing?"

    def other_last_turn(request, texts):
        return [f"Trains {text[-2]}" for text in texts]

    def spoil(request, texts):
        return other_last_turn(request, texts) if request.role == "paraphrase_prompt" else texts

    guards = Guards(GuardsConfig(), MeaningsOfTopics())
    with GenerationStore(tmp_path) as store:
        generator = Generator(GoodParaphraser(spoil), store)
        parents = [Parent("a", prompt, "Yes 1", "No 1", 8)]
        result = augment(parents, generator, guards, AugmentationConfig(draws=1))
    assert guards.dropped == {"meaning lost": 1}
    assert set(result.pairs["prompt"]) == {prompt}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda request, texts: ["Lost meaning"] * len(texts), r"\d+ × meaning lost"),
        (lambda request, texts: [], "it returned no text"),
    ],
    ids=["dropped", "silent"],
)
def test_nothing_usable_is_an_error_that_counts_the_reasons(made, spoil, reason):
    with pytest.raises(AugmentationError, match=f"scripted gave no usable paraphrase of 2 pairs: {reason}"):
        made([3, 3], spoil=spoil)


# The rules


def test_rules_spend_nearly_every_budget_on_real_pairs(tmp_path):
    rows = preferences()[:30]
    budgets = [1 + row % 10 for row in range(30)]
    parents = [
        Parent(row["id"], row["prompt"], row["chosen"], row["rejected"], budget)
        for row, budget in zip(rows, budgets, strict=True)
    ]
    embedder = Embedder(SemanticsConfig())
    with GenerationStore(tmp_path) as store:
        generator = Generator(GenerationConfig().open(), store)
        guards = Guards(GuardsConfig(), embedder)
        result = Made(augment(parents, generator, guards, AugmentationConfig(), label="r1-"), guards.dropped)
    print(f"shortfall {result.shortfall} of {sum(budgets)}, moved {result.moved}, dropped {guards.dropped}")
    assert result.shortfall < 0.05 * sum(budgets)
    assert len(result.pairs) + result.shortfall == sum(budgets)
    assert not result.pairs.duplicated(["prompt", "chosen", "rejected"]).any()
    assert (result.pairs["chosen"] != result.pairs["rejected"]).all()

    sources = {row["id"]: row for row in rows}
    some = result.variants[result.variants["part"] != "prompt"].iloc[::7]
    originals = [sources[parent][part] for parent, part in zip(some["parent_id"], some["part"], strict=True)]
    distances = cosine_distances(embedder.embed(list(some["text"])), embedder.embed(originals))
    assert 0 < distances.max() < 1 - GuardsConfig().min_similarity + 1e-5
