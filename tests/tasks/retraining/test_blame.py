"""Which of several deliveries made a model fall: found by halves, and no other is set aside."""

import math

import pandas as pd
import pytest

from tasks.retraining import gate
from tasks.retraining.ledger import Cycle, Delivered, Ledger


@pytest.fixture
def ledger(tmp_path):
    """The ledger of a retraining for which some deliveries of ten pairs wait."""

    def make(number):
        made = Ledger.of(tmp_path)
        counts = {"rows": 10, "pairs": 10, "duplicates": 0, "bad": 0}
        for name in range(number):
            made.keep(str(name), Delivered(file=str(name), state="waiting", seen="then", **counts))
        return made

    return make


def tried(ledger, guilty, least=10):
    """Run cycles, which are refused where they take a guilty delivery, until nothing waits; their sizes."""
    sizes = []
    while deliveries := ledger.next_deliveries(least):
        cycle = ledger.open(Cycle(number=ledger.next_number, deliveries=deliveries, champion="1"), "", None)
        sizes.append(len(deliveries))
        if not guilty & set(deliveries):
            ledger.close(cycle, "promoted", "trusted", "", None)
        elif len(deliveries) == 1:
            ledger.close(cycle, "refused", "refused", "it fell", None)
        else:
            ledger.close(cycle, "refused", "suspected", "it fell", None, deliveries)
    return sizes


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 13])
def test_one_guilty_delivery_is_found_in_two_cycles_a_halving(ledger, tmp_path, number):
    made = ledger(number)
    guilty = str(number // 2)
    sizes = tried(made, {guilty})
    assert len(sizes) <= 1 + 2 * math.ceil(math.log2(number))
    states = {name: found.state for name, found in Ledger.of(tmp_path).deliveries.items()}
    assert states == {name: "refused" if name == guilty else "trusted" for name in states}


def test_all_guilty_deliveries_are_found(ledger):
    made = ledger(6)
    tried(made, {"0", "5"})
    assert [name for name, found in made.deliveries.items() if found.state == "refused"] == ["0", "5"]


def test_what_comes_meanwhile_waits_until_suspects_were_tried(ledger):
    made = ledger(4)
    cycle = made.open(Cycle(number=1, deliveries=list("0123"), champion="1"), "", None)
    made.close(cycle, "refused", "suspected", "it fell", None, list("3210"))
    made.keep("new", made.deliveries["0"].model_copy(update={"state": "waiting"}))
    assert made.next_deliveries(10) == ["3", "2"]
    assert made.suspects == [["3", "2"], ["1", "0"]]


def test_suspects_that_cannot_be_tried_alone_join_what_comes_next(ledger):
    made = ledger(2)
    cycle = made.open(Cycle(number=1, deliveries=["0", "1"], champion="1"), "", None)
    made.close(cycle, "refused", "suspected", "it fell", None, ["0", "1"])
    made.release(["0"])
    assert made.next_deliveries(10) == ["1"]
    made.release(["1"])
    assert made.next_deliveries(10) == []
    made.keep("new", made.deliveries["0"].model_copy(update={"state": "waiting"}))
    assert made.next_deliveries(10) == ["0", "1", "new"]


def test_a_person_who_trusts_suspects_ends_their_trial(ledger):
    made = ledger(4)
    cycle = made.open(Cycle(number=1, deliveries=list("0123"), champion="1"), "", None)
    made.close(cycle, "refused", "suspected", "it fell", None, list("0123"))
    made.close(cycle, "promoted", "trusted", "", None)
    assert (made.suspects, made.next_deliveries(10)) == ([], [])


def test_suspects_are_tried_in_the_order_in_which_the_champion_agrees_with_them(monkeypatch):
    deliveries = {"poisoned": ["a", "b", "c"], "new": ["of", "no", "jury"], "good": ["d", "e", "f"]}
    margins = {"a": -1.0, "b": -0.5, "c": 0.1, "d": 1.0, "e": 0.5, "f": -0.1}
    heldout = pd.DataFrame({"pair_id": list(margins), "margin": list(margins.values())})
    monkeypatch.setattr(gate, "_results", lambda *_: {"heldout": heldout})
    assert gate.by_agreement(None, list(deliveries), deliveries.get) == ["good", "new", "poisoned"]
