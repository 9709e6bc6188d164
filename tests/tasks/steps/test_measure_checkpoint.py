import math

from mars_core.evaluation.evaluation_config import EvaluationConfig
from tasks.steps.measure_checkpoint import definitions, headlines


def test_beside_every_number_stands_its_definition_and_beside_ties_their_rule():
    suite = EvaluationConfig(benchmarks={"judgebench": "x.jsonl"}).suite
    defined = definitions(suite, ["judgebench", "pairs"])
    metrics = {
        "pairs/accuracy": 0.5,
        "pairs/accuracy_low": 0.25,
        "pairs/accuracy_high": 0.75,
        "pairs/prompts_cut": 3.0,
        "pairs/same_tokens": 2.0,
        "judgebench/total": None,
        "judgebench/total_low": None,
        "judgebench/total_high": None,
        "judgebench/ties": 0.125,
        "judgebench/brier": 0.25,
    }
    rows = {name: rest for name, *rest in headlines(metrics, defined)}
    assert rows["pairs/accuracy"] == ["0.500", "0.250–0.750", ""]
    assert rows["pairs/prompts_cut"] == ["3", "–", "texts whose prompt was cut at model.max_length"]
    assert rows["pairs/same_tokens"][0] == "2"
    assert rows["judgebench/total"] == [
        "–", "–", "share of gpt-4o's pairs with the right answer rewarded more"
    ]  # fmt: skip
    assert rows["judgebench/ties"][0] == "0.125"
    assert rows["judgebench/ties"][2].startswith("equal rewards, which count as wrong; the publisher's code")
    assert "judgebench/brier" not in rows


def test_every_score_of_a_benchmark_that_has_a_definition_is_one_that_it_gives(write):
    rows = [
        {"id": n, "domain": domain, "prompt": "?", "chosen": ["a"] * 3, "rejected": ["b"] * 3}
        for n, domain in enumerate(["chat", "code", "math", "safety-refuse", "safety-response"])
    ]
    one = EvaluationConfig(benchmarks={"rmbench": "x.json"}).suite["rmbench"]
    table = one.results(one.read(write(rows, "rows.json")), [1, 1, 1, 0, 0, 0] * 5)
    scores = one.score(table)
    assert set(one.definitions) <= set(scores)
    assert all(math.isfinite(scores[name]) for name in one.definitions)
