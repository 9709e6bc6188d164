import numpy as np
import pytest
from datasets import Dataset

from mars_core.generation import Answer, GenerationConfig, GenerationStore, Generator, open_backend
from mars_core.generation.interface import digest
from mars_core.rewriting import COLUMNS, Rewrite, RewritingConfig, rewrite
from mars_core.samples.preferences import preferences
from mars_core.semantics import Embedder, SemanticsConfig, cosine_distances, measure_distances

CONFIG = RewritingConfig(tries=5, first_wave=2)
SHORT = [row for row in preferences() if len(row["chosen"]) + len(row["rejected"]) < 200]
PROMPT = "What is a lark?"
CHOSEN = "A lark is a small songbird that sings in flight."
REJECTED = "A lark is a small songbird that sings."
NEAR = "A lark is a little songbird that sings in flight."
FAR = "I like trains."
FARTHEST = "Quarterly tax returns are due in April."


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
            texts = tuple(self.script.get((request.prompt, request.role, request.draw), ()))
            yield index, Answer(self.key(request), texts, ("stop",) * len(texts), 0, 0, 0.0)


@pytest.fixture(scope="module")
def embedder():
    return Embedder(SemanticsConfig())


@pytest.fixture
def rewritten(tmp_path, embedder):
    """Rewrite pairs by a script: the table, and what the backend was asked."""

    def run(script, prompts=(PROMPT,), chosen=CHOSEN, rejected=REJECTED, config=CONFIG):
        a, b = embedder.embed([chosen, rejected])
        before = float(cosine_distances(a[None], b[None])[0])
        pairs = [
            Rewrite(f"pair-{row}", prompt, chosen, rejected, before, before)
            for row, prompt in enumerate(prompts)
        ]
        backend = ScriptedBackend(script)
        with GenerationStore(tmp_path / "store") as store:
            return rewrite(pairs, Generator(backend, store), embedder, config), backend.asked

    return run


def test_the_farthest_candidate_wins(rewritten):
    table, asked = rewritten({(PROMPT, "rewrite_rejected", 0): [FAR, FARTHEST, NEAR]})
    [row] = table.itertuples()
    assert (row.rewritten, row.chosen, row.rejected) == ("rejected", CHOSEN, FARTHEST)
    assert row.distance_after > row.distance_before
    assert row.attempts == 3
    assert row.request
    assert asked == [(PROMPT, "rewrite_rejected", 0, 2)]


def test_only_unsettled_pairs_are_asked_for_again(rewritten):
    script = {
        ("easy", "rewrite_rejected", 0): [FAR, NEAR],
        ("hard", "rewrite_rejected", 1): [NEAR, FAR, NEAR],
    }
    table, asked = rewritten(script, prompts=("easy", "hard"))
    assert asked == [
        ("easy", "rewrite_rejected", 0, 2),
        ("hard", "rewrite_rejected", 0, 2),
        ("hard", "rewrite_rejected", 1, 3),
    ]
    assert list(table["rewritten"]) == ["rejected", "rejected"]
    assert list(table["attempts"]) == [2, 3]


def test_the_chosen_response_is_rewritten_only_where_the_rejected_one_failed(rewritten):
    script = {
        (PROMPT, "rewrite_rejected", 0): [CHOSEN + " ", NEAR],
        (PROMPT, "rewrite_rejected", 1): [NEAR, NEAR, NEAR],
        (PROMPT, "rewrite_chosen", 0): [FAR, FARTHEST],
    }
    table, asked = rewritten(script)
    [row] = table.itertuples()
    assert (row.rewritten, row.rejected) == ("chosen", REJECTED)
    assert row.chosen in (FAR, FARTHEST)
    assert row.attempts == 7
    assert [(role, n) for _, role, _, n in asked] == [
        ("rewrite_rejected", 2),
        ("rewrite_rejected", 3),
        ("rewrite_chosen", 2),
    ]


def test_a_pair_that_nothing_moves_apart_stays_as_it_was(rewritten):
    table, asked = rewritten(
        {(PROMPT, "rewrite_rejected", 0): [NEAR], (PROMPT, "rewrite_chosen", 1): [REJECTED]}
    )
    [row] = table.itertuples()
    assert (row.rewritten, row.chosen, row.rejected, row.request) == ("none", CHOSEN, REJECTED, "")
    assert row.distance_after == row.distance_before
    assert row.attempts == 2
    assert len(asked) == 4


def test_a_rewrite_never_makes_the_responses_equal(rewritten):
    script = {
        (PROMPT, "rewrite_rejected", 0): [CHOSEN, CHOSEN],
        (PROMPT, "rewrite_chosen", 0): [CHOSEN.upper(), CHOSEN.upper()],
    }
    # The embedder takes the two for one text, so that any rounding would make a candidate the farther one.
    table, _ = rewritten(script, rejected=CHOSEN.upper())
    assert table["distance_before"].item() < 1e-6
    assert table[["chosen", "rejected"]].to_numpy().tolist() == [[CHOSEN, CHOSEN.upper()]]
    assert table["attempts"].item() == 4


def test_a_response_that_comes_back_unchanged_is_no_rewrite(tmp_path, embedder):
    echo = ScriptedBackend(
        {(PROMPT, "rewrite_rejected", 0): [REJECTED], (PROMPT, "rewrite_chosen", 0): [CHOSEN]}
    )
    pair = Rewrite("pair", PROMPT, CHOSEN, REJECTED, distance_before=0.0, distance_after=0.0)
    with GenerationStore(tmp_path) as store:
        table = rewrite([pair], Generator(echo, store), embedder, CONFIG)
    assert list(table["rewritten"]) == ["none"]


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


def test_rules_move_real_pairs_apart(tmp_path, embedder):
    originals = Dataset.from_list(SHORT[:24]).rename_column("id", "pair_id")
    distances = measure_distances(originals, embedder, "mean")
    close = [
        Rewrite(pair["pair_id"], pair["prompt"], pair["chosen"], pair["rejected"], distance, distance)
        for pair, distance in zip(originals, distances["distance"].tolist(), strict=True)
    ]
    with GenerationStore(tmp_path) as store:
        answered = []
        generator = Generator(open_backend(GenerationConfig()), store)
        table = rewrite(close, generator, embedder, CONFIG, answered.append)
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
