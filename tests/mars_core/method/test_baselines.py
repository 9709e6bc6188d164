"""Baselines: originals again, the easiest of a pool, the best and the worst of several responses."""

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from mars_core.files import digest
from mars_core.generation import Answer, GenerationStore, Generator
from mars_core.method.augmentation import Parent
from mars_core.method.baselines import easiest, repeated, topped_up, west_of_n
from mars_core.method.guards import Guards, GuardsConfig

PARENTS = (("a", 2), ("b", 0), ("c", 3))


def parents():
    return [
        Parent(pair_id, f"Prompt {pair_id}?", f"Good {pair_id}.", f"Bad {pair_id}.", budget)
        for pair_id, budget in PARENTS
    ]


class Chat:
    """Stands for a chat model: sample i of a prompt is as many words as its draw and i say."""

    name = "chat"

    def __init__(self, finish_reason="stop"):
        self.finish_reason = finish_reason

    def key(self, request):
        return digest(request.role, request.prompt, request.n, request.draw)

    def answers(self, requests):
        for index, request in enumerate(requests):
            texts = tuple(" ".join(["word"] * (1 + request.draw + i)) for i in range(request.n))
            yield index, Answer(self.key(request), texts, (self.finish_reason,) * request.n, 7, 3, 0.0)

    def close(self):
        pass


class Brevity:
    """A reward model that prefers the shorter response."""

    def readouts(self, prompts, responses):
        return np.array([-len(response) for response in responses], dtype=np.float32)[:, None]

    def rewards(self, readouts):
        return readouts[:, 0]

    def margins(self, chosen, rejected):
        return chosen[:, 0] - rejected[:, 0]


def paired(folder, originals=None, **chat):
    guards = Guards(GuardsConfig(), None, Brevity())
    with GenerationStore(folder) as store:
        return west_of_n(originals or parents(), Generator(Chat(**chat), store), guards, 4, "r1-")


def test_an_original_is_repeated_as_often_as_its_budget_says():
    augmentation = repeated(parents(), "r1-")
    assert Counter(augmentation.pairs["parent_id"]) == {"a": 2, "c": 3}
    assert len(set(augmentation.pairs["synthetic_id"])) == 5
    assert set(augmentation.pairs["chosen"]) == {"Good a.", "Good c."}
    assert (len(augmentation.variants), augmentation.shortfall, augmentation.tokens) == (0, 0, 0)


def test_what_could_not_be_made_is_filled_with_originals_in_their_order():
    made = repeated(parents()[:1], "r1-").pairs
    filled = topped_up(made, parents(), 6, "again-")
    assert filled["synthetic_id"][:] == [
        *made["synthetic_id"],
        "again-a-n0",
        "again-a-n1",
        "again-b-n0",
        "again-c-n0",
    ]
    assert len(topped_up(made, parents(), 2)) == 2


def test_of_a_pool_the_pairs_of_the_greatest_margin_are_kept_for_each_original():
    pool = Dataset.from_dict({"parent_id": list("aaabbb"), "synthetic_id": list("uvwxyz")})
    kept = easiest(pool, [0.1, 0.9, 0.5, -1.0, -3.0, -2.0], {"a": 2, "b": 1})
    assert kept["synthetic_id"][:] == ["v", "w", "x"]


def test_equal_margins_of_a_pool_keep_no_more_than_the_budget():
    pool = Dataset.from_dict({"parent_id": list("aaa"), "synthetic_id": list("uvw")})
    assert easiest(pool, [1.0, 1.0, 1.0], {"a": 2})["synthetic_id"][:] == ["u", "v"]


def test_the_responses_of_greatest_and_least_reward_become_a_pair(tmp_path):
    augmentation = paired(tmp_path)
    pairs = augmentation.pairs.to_pandas().set_index("synthetic_id")
    assert list(pairs.index) == ["r1-a-w0", "r1-a-w1", "r1-c-w0", "r1-c-w1", "r1-c-w2"]
    assert (pairs.loc["r1-a-w1", "chosen"], pairs.loc["r1-a-w1", "rejected"]) == (
        "word word",
        "word word word word word",
    )
    assert set(pairs["prompt"]) == {"Prompt a?", "Prompt c?"}
    assert augmentation.tokens == 5 * 10


def test_both_responses_of_a_pair_are_variants_that_name_their_request(tmp_path):
    augmentation = paired(tmp_path)
    variants = {(row["parent_id"], row["part"], row["variant"]): row for row in augmentation.variants}
    assert len(variants) == 2 * len(augmentation.pairs)
    for pair in augmentation.pairs:
        for part in ("chosen", "rejected"):
            variant = variants[pair["parent_id"], part, pair[f"{part}_variant"]]
            assert variant["text"] == pair[part]
            draw = variant["variant"] - 1
            assert variant["request"] == digest("respond", f"Prompt {pair['parent_id']}?", 4, draw)


def test_originals_of_one_prompt_get_samples_of_their_own(tmp_path):
    same = [Parent(name, "Prompt?", f"Good {name}.", f"Bad {name}.", 2) for name in "ab"]
    asked = paired(tmp_path, originals=same).variants["request"]
    assert set(asked) == {digest("respond", "Prompt?", 4, draw) for draw in range(4)}


def test_no_pair_is_made_of_responses_that_were_cut_off(tmp_path):
    with pytest.raises(Exception, match="no two usable responses to a prompt: 20 × cut off"):
        paired(tmp_path, finish_reason="length")
