import numpy as np
import pytest
from datasets import Dataset

from mars_core.data.samples import preferences
from mars_core.files import digest
from mars_core.generation import Answer, GenerationConfig, GenerationStore, Generator
from mars_core.method.guards import Guards, GuardsConfig
from mars_core.method.rewriting import COLUMNS, FEW_PAIRS, Rewrite, RewritingConfig, RewritingError, rewrite
from mars_core.method.semantics import Embedder, SemanticsConfig, cosine_distances, measure_distances

CONFIG = RewritingConfig(tries=5, first_wave=2)
SHORT = [row for row in preferences() if len(row["chosen"]) + len(row["rejected"]) < 200]
PROMPT = "What is a lark?"
CHOSEN = "A lark is a small songbird that sings in flight."
REJECTED = "A lark is a small songbird that sings."
NEAR = "A lark is a little songbird that sings in flight."
FAR = "A lark is a joke or a prank."
"""Farther from both responses than they are from each other, and about as relevant to the prompt."""
ABOUT = "A lark is a kind of bird."
"""Farther, too, but less so, and nearer to the prompt than any response."""
ECHOED = "What is a lark, then?"
"""The prompt once more."""
BESIDE = "Quarterly tax returns are due in April."
"""Farthest of all, and about something else."""
EASY, HARD = "What is a lark, in short?", "Tell me what a lark is."
REFUSAL = "I'm sorry, but I can't help with that."
REFUSED = {"error": "HTTP 400: too long", "refused": True}


class ScriptedBackend:
    """Answers with the texts that `script` names for (prompt, role, draw); keeps what it was asked."""

    name = "scripted"

    def __init__(self, script):
        self.script = script
        self.asked = []

    def key(self, request):
        return digest(request.role, request.prompt, request.chosen, request.rejected, request.n, request.draw)

    def answers(self, requests):
        for index, request in enumerate(requests):
            self.asked.append((request.prompt, request.role, request.draw, request.n))
            said = self.script.get((request.prompt, request.role, request.draw), ())
            texts, failure = ((), said) if isinstance(said, dict) else (tuple(said), {})
            yield index, Answer(self.key(request), texts, ("stop",) * len(texts), 7, 3, 0.0, **failure)


@pytest.fixture(scope="module")
def embedder():
    return Embedder(SemanticsConfig())


class ByHeart:
    """A reward model by heart: the rewards of some responses, 0 for any other. Keeps what it scored."""

    def __init__(self, **known):
        self.known = known
        self.scored = []

    def readouts(self, prompts, responses):
        self.scored.append(list(responses))
        return np.array([self.known.get(response, 0.0) for response in responses], dtype=np.float32)[:, None]

    def rewards(self, readouts):
        return readouts[:, 0]

    def margins(self, chosen, rejected):
        return chosen[:, 0] - rejected[:, 0]


def readout(reward):
    """What such a model keeps of a text of this reward."""
    return np.array([reward], dtype=np.float32)


def relevance(guards, text):
    return float(1 - guards.distances([text], [PROMPT])[0])


@pytest.fixture
def guards(embedder):
    """The guards as they are by default, around rewards by heart."""
    return Guards(GuardsConfig(), embedder, ByHeart())


@pytest.fixture
def rewritten(tmp_path, embedder, guards):
    """Rewrite pairs by a script: the table, and what the backend was asked."""

    def run(
        script, prompts=(PROMPT,), chosen=CHOSEN, rejected=REJECTED, config=CONFIG, guards=guards, **rewards
    ):
        a, b = embedder.embed([chosen, rejected])
        before = float(cosine_distances(a[None], b[None])[0])
        rewards = {"reward_chosen": 0.0, "reward_rejected": 0.0} | rewards
        readouts = readout(rewards["reward_chosen"]), readout(rewards["reward_rejected"])
        pairs = [
            Rewrite(f"pair-{row}", prompt, chosen, rejected, before, before, *readouts)
            for row, prompt in enumerate(prompts)
        ]
        backend = ScriptedBackend(script)
        with GenerationStore(tmp_path / "store") as store:
            return rewrite(pairs, Generator(backend, store), guards, config), backend.asked

    return run


def test_of_the_farther_candidates_the_one_about_as_relevant_as_the_responses_wins(rewritten, guards):
    table, asked = rewritten({(PROMPT, "rewrite_rejected", 0): [ABOUT, FAR, NEAR]})
    [row] = table.itertuples()
    assert (row.rewritten, row.chosen, row.rejected) == ("rejected", CHOSEN, FAR)
    assert guards.dropped == {"not farther": 1, "surplus": 1}
    assert row.distance_after > row.distance_before
    assert row.attempts == 3
    assert row.request
    assert asked == [(PROMPT, "rewrite_rejected", 0, 2)]


def test_the_prompt_itself_is_no_rewrite(rewritten, guards):
    table, _ = rewritten({(PROMPT, "rewrite_rejected", 0): [ECHOED, PROMPT]})
    assert list(table["rewritten"]) == ["none"]
    assert guards.dropped == {"copy": 2}


def test_only_unsettled_pairs_are_asked_for_again(rewritten):
    script = {
        (EASY, "rewrite_rejected", 0): [FAR, NEAR],
        (HARD, "rewrite_rejected", 1): [NEAR, FAR, NEAR],
    }
    table, asked = rewritten(script, prompts=(EASY, HARD))
    assert asked == [
        (EASY, "rewrite_rejected", 0, 2),
        (HARD, "rewrite_rejected", 0, 2),
        (HARD, "rewrite_rejected", 1, 3),
    ]
    assert list(table["rewritten"]) == ["rejected", "rejected"]
    assert list(table["attempts"]) == [2, 3]


def test_the_chosen_response_is_rewritten_only_where_the_rejected_one_failed(rewritten):
    script = {
        (PROMPT, "rewrite_rejected", 0): [CHOSEN + " ", NEAR],
        (PROMPT, "rewrite_rejected", 1): [NEAR, NEAR, NEAR],
        (PROMPT, "rewrite_chosen", 0): [FAR, ABOUT],
    }
    table, asked = rewritten(script)
    [row] = table.itertuples()
    assert (row.rewritten, row.rejected) == ("chosen", REJECTED)
    assert row.chosen in (FAR, ABOUT)
    assert row.attempts == 7
    assert [(role, n) for _, role, _, n in asked] == [
        ("rewrite_rejected", 2),
        ("rewrite_rejected", 3),
        ("rewrite_chosen", 2),
    ]


def test_a_pair_has_the_tokens_of_all_answers_about_it_and_of_no_other(rewritten):
    script = {(EASY, "rewrite_rejected", 0): [FAR], (HARD, "rewrite_rejected", 1): [FAR]}
    table, asked = rewritten(script, prompts=(EASY, HARD))
    assert list(table["tokens"]) == [10, 20]
    bought_before, _ = rewritten(script, prompts=(EASY, HARD))
    assert bought_before.equals(table)
    assert len(asked) == 3


def test_a_request_that_failed_is_sent_once_more_before_the_other_side_is_rewritten(rewritten):
    class Recovering(dict):
        """Fails of each first request."""

        def get(self, request, default):
            said = super().get(request, default)
            self[request] = [FAR]
            return said

    table, asked = rewritten(Recovering({(PROMPT, "rewrite_rejected", 0): {"error": "HTTP 500: no"}}))
    assert list(table["rewritten"]) == ["rejected"]
    assert asked == 2 * [(PROMPT, "rewrite_rejected", 0, 2)]


def test_a_request_that_failed_twice_is_not_sent_again_and_the_next_wave_is(rewritten):
    table, asked = rewritten({(PROMPT, "rewrite_rejected", 0): {"error": "HTTP 500: no"}})
    assert [(role, draw) for _, role, draw, _ in asked] == [
        ("rewrite_rejected", 0),
        ("rewrite_rejected", 0),
        ("rewrite_rejected", 1),
        ("rewrite_chosen", 0),
        ("rewrite_chosen", 1),
    ]
    assert list(table["rewritten"]) == ["none"]


def test_a_side_whose_request_was_refused_is_not_asked_for_again(rewritten):
    table, asked = rewritten({(PROMPT, "rewrite_rejected", 0): REFUSED, (PROMPT, "rewrite_chosen", 0): [FAR]})
    assert list(table["rewritten"]) == ["chosen"]
    assert [role for _, role, _, _ in asked] == ["rewrite_rejected", "rewrite_chosen"]


def test_a_pair_that_nothing_moves_apart_stays_as_it_was(rewritten):
    table, asked = rewritten(
        {(PROMPT, "rewrite_rejected", 0): [NEAR], (PROMPT, "rewrite_chosen", 1): [REJECTED]}
    )
    [row] = table.itertuples()
    assert (row.rewritten, row.chosen, row.rejected, row.request) == ("none", CHOSEN, REJECTED, "")
    assert row.distance_after == row.distance_before
    assert row.attempts == 2
    assert len(asked) == 4


def test_a_rewrite_never_makes_the_responses_equal(rewritten, guards):
    script = {
        (PROMPT, "rewrite_rejected", 0): [CHOSEN.upper(), NEAR],
        (PROMPT, "rewrite_chosen", 0): [REJECTED.upper()],
    }
    table, _ = rewritten(script)
    assert table[["chosen", "rejected"]].to_numpy().tolist() == [[CHOSEN, REJECTED]]
    assert table["attempts"].item() == 3
    assert guards.dropped == {"not distinct": 2, "not farther": 1}


def test_a_response_that_comes_back_unchanged_is_no_rewrite(rewritten, guards):
    echo = {
        (PROMPT, "rewrite_rejected", 0): [REJECTED, NEAR],
        (PROMPT, "rewrite_chosen", 0): [CHOSEN.upper()],
    }
    table, _ = rewritten(echo)
    assert list(table["rewritten"]) == ["none"]
    assert guards.dropped == {"copy": 2, "not farther": 1}


@pytest.mark.parametrize(
    "refusal", [REFUSAL, "Das möchte ich lieber nicht schreiben.", "我不能回答这个问题。"]
)
def test_a_refusal_is_no_rewrite_though_it_is_the_farthest(rewritten, guards, refusal):
    table, _ = rewritten(
        {(PROMPT, "rewrite_rejected", 0): [refusal] * 2, (PROMPT, "rewrite_rejected", 1): [refusal, ABOUT]}
    )
    assert (table["rewritten"].item(), table["rejected"].item()) == ("rejected", ABOUT)
    assert guards.dropped == {"refusal": 3}


# What the prompt asks


def test_a_rewrite_beside_the_prompt_is_dropped_however_far_it_leads(rewritten, guards):
    table, _ = rewritten({(PROMPT, "rewrite_rejected", 0): [BESIDE, NEAR]})
    assert list(table["rewritten"]) == ["none"]
    assert guards.dropped == {"beside the prompt": 1, "not farther": 1}
    shown = guards.shown().query("reason == 'beside the prompt'")
    assert list(shown["text"]) == [BESIDE]
    assert shown["number"].item() == pytest.approx(relevance(guards, BESIDE), abs=1e-4)


def test_a_rewrite_has_to_be_about_as_relevant_as_the_more_relevant_response(rewritten, guards, embedder):
    needed = max(relevance(guards, CHOSEN), relevance(guards, REJECTED)) - relevance(guards, BESIDE)
    for tolerance, expected in ((needed - 0.01, "none"), (needed + 0.01, "rejected")):
        tolerant = Guards(GuardsConfig(relevance_tolerance=tolerance), embedder, ByHeart())
        table, _ = rewritten({(PROMPT, "rewrite_rejected", 0): [BESIDE]}, guards=tolerant)
        assert list(table["rewritten"]) == [expected]


def test_the_relevance_of_a_rewrite_is_its_similarity_to_the_last_turn(rewritten, guards):
    dialogue = f"Human: Do trains sing?\n\nAssistant: No.\n\nHuman: {PROMPT}"
    table, _ = rewritten({(dialogue, "rewrite_rejected", 0): [ABOUT]}, prompts=(dialogue,))
    assert table["relevance"].item() == pytest.approx(relevance(guards, ABOUT))


# The order of the pair


def test_a_rewrite_that_flips_the_order_gives_way_to_another(rewritten, guards, embedder):
    rewards = ByHeart(**{FAR: 1.2, ABOUT: 0.4})
    guards = Guards(GuardsConfig(order_tolerance=0.1), embedder, rewards)
    script = {(PROMPT, "rewrite_rejected", 0): [FAR, ABOUT, NEAR]}
    table, asked = rewritten(script, guards=guards, reward_chosen=1.0, reward_rejected=0.0)
    assert table["rejected"].item() == ABOUT
    assert guards.dropped == {"order flipped": 1, "not farther": 1}
    assert rewards.scored == [[FAR, ABOUT]]  # the nearer one could not be taken
    assert len(asked) == 1


def test_a_chosen_response_may_not_be_rewritten_below_the_rejected_one(rewritten, embedder):
    guards = Guards(GuardsConfig(order_tolerance=0.1), embedder, ByHeart(**{FAR: -0.5, ABOUT: -0.5}))
    script = {(PROMPT, "rewrite_chosen", 0): [FAR, ABOUT], (PROMPT, "rewrite_rejected", 0): [NEAR]}
    table, _ = rewritten(script, guards=guards, reward_chosen=1.0, reward_rejected=0.0)
    assert table["rewritten"].item() == "none"
    assert guards.dropped == {"order flipped": 2, "not farther": 1}


def test_a_pair_that_the_model_has_in_the_wrong_order_may_stay_so(rewritten, embedder):
    guards = Guards(GuardsConfig(order_tolerance=0.1), embedder, ByHeart(**{FAR: 3.05, ABOUT: 3.2}))
    script = {(PROMPT, "rewrite_rejected", 0): [FAR, ABOUT]}
    table, _ = rewritten(script, guards=guards, reward_chosen=1.0, reward_rejected=3.0)
    assert table["rejected"].item() == FAR


def test_answers_that_are_there_are_scored_together(rewritten, embedder):
    prompts = tuple(f"{PROMPT} ({number})" for number in range(9))
    script = {(prompt, "rewrite_rejected", 0): [FAR, ABOUT] for prompt in prompts}
    rewritten(script, prompts=prompts)
    rewards = ByHeart()
    rewritten(script, prompts=prompts, guards=Guards(GuardsConfig(), embedder, rewards))
    assert rewards.scored == [[FAR, ABOUT] * 9]


def test_dropping_every_rewrite_is_an_error_that_counts_the_reasons(rewritten):
    prompts = [f"{PROMPT} {i}" for i in range(FEW_PAIRS + 1)]
    script = {(prompt, "rewrite_rejected", 0): [REFUSAL, REJECTED] for prompt in prompts}
    script[prompts[0], "rewrite_chosen", 1] = [REFUSAL]
    with pytest.raises(
        RewritingError, match="scripted gave no usable rewrite of 6 close pairs: 7 × refusal, 6 × copy"
    ):
        rewritten(script, prompts=prompts)


def test_a_few_pairs_without_a_usable_rewrite_stay_as_they_are(rewritten):
    table, _ = rewritten({(PROMPT, "rewrite_rejected", 0): [REFUSAL, REJECTED]})
    assert table["rewritten"].item() == "none"
    assert table["rejected"].item() == REJECTED


def test_a_pair_whose_every_rewrite_would_flip_its_order_is_kept(rewritten, embedder):
    guards = Guards(GuardsConfig(), embedder, ByHeart(**{FAR: 9.0, ABOUT: -9.0}))
    script = {(PROMPT, "rewrite_rejected", 0): [FAR], (PROMPT, "rewrite_chosen", 0): [ABOUT]}
    table, _ = rewritten(script, guards=guards)
    assert table["rewritten"].item() == "none"
    assert guards.dropped == {"order flipped": 2}


def test_a_single_wave_asks_for_no_more_than_the_tries(rewritten):
    _, asked = rewritten({}, config=RewritingConfig(tries=2, first_wave=4))
    assert [(role, n) for _, role, _, n in asked] == [("rewrite_rejected", 2), ("rewrite_chosen", 2)]


def test_no_close_pairs_give_an_empty_table_of_the_same_types(rewritten):
    empty, asked = rewritten({}, prompts=())
    full, _ = rewritten({(PROMPT, "rewrite_rejected", 0): [FAR]})
    assert asked == []
    assert len(empty) == 0
    assert list(empty) == list(full) == list(COLUMNS)
    assert (empty.dtypes == full.dtypes).all()


def test_rules_move_real_pairs_apart(tmp_path, embedder, guards):
    originals = Dataset.from_list(SHORT[:24]).rename_column("id", "pair_id")
    distances = measure_distances(originals, embedder, "mean")
    close = [
        Rewrite(
            *(pair[name] for name in ("pair_id", "prompt", "chosen", "rejected")),
            *(distance, distance),
            *(readout(0), readout(0)),
        )
        for pair, distance in zip(originals, distances["distance"].tolist(), strict=True)
    ]
    with GenerationStore(tmp_path) as store:
        answered = []
        generator = Generator(GenerationConfig().open(), store)
        table = rewrite(close, generator, guards, CONFIG, lambda: answered.append(1))
    print(dict(guards.dropped), dict(guards.seconds))
    assert len(answered) == generator.counts.requests
    assert list(table["pair_id"]) == list(originals["pair_id"])
    assert (table["chosen"] != table["rejected"]).all()
    np.testing.assert_array_equal(table["distance_before"], distances["distance"])

    changed = table["rewritten"] != "none"
    assert changed.mean() > 0.9
    assert (table["distance_after"] > table["distance_before"])[changed].all()
    assert (table["distance_after"] == table["distance_before"])[~changed].all()
    for side, other in (("rejected", "chosen"), ("chosen", "rejected")):
        assert (table[other] == originals.to_pandas()[other])[table["rewritten"] != other].all()
        assert (table[side] != originals.to_pandas()[side])[table["rewritten"] == side].all()
    measured = cosine_distances(
        embedder.embed(list(table["chosen"])), embedder.embed(list(table["rejected"]))
    )
    np.testing.assert_allclose(table["distance_after"], measured, atol=1e-6)
