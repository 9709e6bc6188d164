"""The jury: held out by meaning and a secret, by no delivery alone, and never trained on."""

import pandas as pd
import pytest
from datasets import Dataset

from mars_core.data.accepted import Accepted
from mars_core.data.identity import pair_identity
from mars_core.data.pairs import prompt_position
from tasks.retraining.jury import Division, balanced, without_repetitions
from tasks.retraining.ledger import Delivered, Ledger

SHARE = 0.25


def pairs(prompts, chosen="It is {}.", rejected="No idea about {}."):
    columns = {
        "prompt": prompts,
        "chosen": map(chosen.format, prompts),
        "rejected": map(rejected.format, prompts),
    }
    table = pd.DataFrame({name: list(texts) for name, texts in columns.items()})
    return table.assign(pair_id=[pair_identity(*texts) for texts in table.itertuples(index=False)])


class Deliveries:
    """The ledger of a retraining with accepted deliveries."""

    def __init__(self, root):
        self.ledger = Ledger.of(root)

    def accept(self, name, table, identity=2):
        file = self.ledger.accepted(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(file)
        delivered = {"file": name, "state": "trusted", "rows": len(table), "pairs": len(table), "bad": 0}
        self.ledger.keep(name, Delivered(**delivered, duplicates=0, seen="then", identity=identity))

    def divided(self):
        """The prompts of each delivery that are trained on, and those that are held out."""
        division = Division(self.ledger, SHARE)
        made = {name: division.divide(self.ledger.accepted_pairs(name)) for name in self.ledger.deliveries}
        return {name: (list(part.train["prompt"]), list(part.held["prompt"])) for name, part in made.items()}


@pytest.fixture
def deliveries(tmp_path):
    return Deliveries(tmp_path / "one")


PROMPTS = [f"What is thing {number}?" for number in range(400)]


def test_a_mark_after_a_prompt_moves_no_pair_out_of_the_jury(deliveries):
    deliveries.accept("a", pairs(PROMPTS))
    deliveries.accept("b", pairs([f"{prompt}!" for prompt in PROMPTS], "Something: {}", "Nothing: {}"))
    divided = deliveries.divided()
    assert [prompt.rstrip("!") for prompt in divided["b"][1]] == divided["a"][1]
    assert 70 < len(divided["a"][1]) < 130


def test_whoever_delivers_cannot_tell_which_prompts_are_held_out(deliveries, tmp_path):
    chosen = [prompt for prompt in map("Try {}?".format, range(2000)) if prompt_position(prompt) < SHARE]
    other = Deliveries(tmp_path / "two")
    for one in (deliveries, other):
        one.accept("a", pairs(chosen))
    held = [set(one.divided()["a"][1]) for one in (deliveries, other)]
    assert held[0] != held[1]
    assert all(len(some) < 0.4 * len(chosen) for some in held)
    assert set(Deliveries(tmp_path / "one").divided()["a"][1]) == held[0]


def test_prompts_that_an_earlier_version_divided_stay_where_they_are(deliveries):
    old = pairs(PROMPTS).assign(pair_id=PROMPTS)  # ids of another kind
    deliveries.accept("a", old, identity=1)
    deliveries.accept("b", pairs([f"{prompt}!" for prompt in PROMPTS], "Something: {}", "Nothing: {}"))
    deliveries.accept("c", pairs(PROMPTS))
    _, held = deliveries.divided()["a"]
    assert set(held) == {prompt for prompt in PROMPTS if prompt_position(prompt) < SHARE}
    assert {prompt.rstrip("!") for prompt in deliveries.divided()["b"][1]} == set(held)
    assert deliveries.divided()["c"] == ([], [])  # the same pairs, by today's identity


def test_a_prompt_that_an_earlier_version_put_on_both_sides_is_trained_on(deliveries):
    both = [p for p in PROMPTS if (prompt_position(p) < SHARE) != (prompt_position(f"{p}!") < SHARE)]
    old = pairs([both[0], f"{both[0]}!"], "{} is one thing.", "{} is nothing.")
    deliveries.accept("a", old.assign(chosen=["b", "c"], rejected=["d", "e"]), identity=1)
    assert deliveries.divided()["a"][1] == []


def test_a_pair_counts_once_and_its_exchange_not_at_all(deliveries):
    table = pairs(PROMPTS[:10])
    contrary = table.rename(columns={"chosen": "rejected", "rejected": "chosen"})
    deliveries.accept("a", pd.concat([table, table, contrary]), identity=1)
    deliveries.accept("b", contrary, identity=1)
    train, held = deliveries.divided()["a"]
    assert sorted(train + held) == sorted(PROMPTS[:10])
    assert deliveries.divided()["b"] == ([], [])


def sized(*sizes):
    return [Dataset.from_dict({"row": list(range(size))}) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "beside", "kept"),
    [
        ([100, 5000], 0, [100, 100]),
        ([100, 5000, 4000], 0, [100, 4100, 4000]),
        ([5000], 300, [300]),
        ([5000], 0, [5000]),
        ([0, 5000], 0, [5000]),
        ([], 7, []),
    ],
    ids=["two", "three", "gate.pairs", "alone", "another without any", "none"],
)
def test_one_delivery_makes_at_most_half_of_the_jury(sizes, beside, kept):
    assert [part["row"][:] for part in balanced(sized(*sizes), beside)] == [
        list(range(size)) for size in kept
    ]


JUDGE = {
    "prompt": "Explain in simple words to a child why the sky is blue on a clear day.",
    "chosen": "Air scatters blue light more than red light, so blue comes from everywhere.",
    "rejected": "The sky is blue because the sea is blue, and it shines up there.",
}


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"prompt": JUDGE["prompt"] + " Please, and thank you!", "chosen": "It is."}, False),
        ({"prompt": JUDGE["prompt"].replace("Explain", "Tell").upper(), "chosen": "It is."}, False),
        ({"prompt": "Why?"}, False),
        ({"prompt": "Why?", "chosen": JUDGE["rejected"], "rejected": JUDGE["chosen"]}, False),
        ({"prompt": "Explain why grass is green.", "chosen": "It is."}, True),
    ],
    ids=["longer", "a word changed", "the same responses", "exchanged", "another"],
)
def test_what_repeats_the_jury_is_never_trained_on(changes, kept):
    table = Dataset.from_list([JUDGE | changes, {"prompt": "Hello?", "chosen": "a", "rejected": "b"}])
    left = without_repetitions(table, [Dataset.from_list([JUDGE])])
    assert len(left) == 1 + kept
    assert len(without_repetitions(table, [])) == 2


def test_accepted_pairs_of_an_earlier_version_have_todays_ids(tmp_path):
    table = pairs(PROMPTS[:3])
    table.assign(pair_id=["1", "2", "3"]).to_parquet(tmp_path / "a.parquet")
    accepted = Accepted(file=tmp_path / "a.parquet", reading=2, identity=1)
    assert accepted.ids() == accepted.table()["pair_id"][:] == list(table["pair_id"])
