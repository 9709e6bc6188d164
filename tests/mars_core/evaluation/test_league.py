"""Several models on the same rows: scores, differences, and ranks that are shared where nothing is shown."""

import numpy as np
import pandas as pd
import pytest

from mars_core.evaluation.evaluation_config import EvaluationConfig
from mars_core.evaluation.league import league, together
from mars_core.report.evaluation_report import league_figure, league_page, league_table

SUITE = EvaluationConfig(
    benchmarks={"rewardbench": "sample://rewardbench", "ppe_correctness": "x.jsonl"}
).suite
MODELS = ["good", "as good", "poor"]


def pairs(right, n=200):
    """The table of a model that is right on these pairs."""
    names = list(map(str, range(n)))
    return pd.DataFrame(
        {"pair_id": names, "prompt": range(n), "margin": np.where(np.isin(range(n), list(right)), 1.0, -1.0)}
    )


def compared(*right):
    tables = [{"pairs": pairs(own)} for own in right]
    metrics = [
        {"pairs/accuracy": len(own) / 200, "pairs/accuracy_low": 0.1, "pairs/accuracy_high": 0.9}
        for own in right
    ]
    [source] = league({}, tables, metrics)
    return source


def test_models_that_are_not_shown_to_differ_share_a_rank():
    source = compared(range(150), range(2, 153), range(80))
    assert source.ranks == [1, 1, 3]
    assert [score.value for score in source.scores] == [0.75, 0.755, 0.4]
    assert set(source.differences) == {(1, 0), (1, 2), (0, 2)}  # the better one first
    assert source.differences[1, 0].low <= 0 < source.differences[1, 2].low


def test_the_difference_is_paired_so_that_a_small_one_can_be_shown():
    source = compared(range(110), range(100))
    assert source.differences[0, 1].low > 0
    assert source.ranks == [1, 2]


def test_an_interval_alone_shows_nothing_where_the_test_disagrees():
    source = compared(range(6), [])  # of 200 pairs, six are right in one model alone
    assert source.differences[0, 1].low > 0
    assert source.ranks == [1, 2]
    source = compared(range(5), [])
    assert source.differences[0, 1].low > 0
    assert source.differences[0, 1].p_value > 0.05
    assert source.ranks == [1, 1]


def test_models_measured_on_other_pairs_are_refused():
    tables = [{"pairs": pairs([1], n)} for n in (3, 4)]
    with pytest.raises(ValueError, match="same pairs"):
        league({}, tables, [{}, {}])


def test_a_score_that_a_model_lacks_is_a_dash_and_models_that_cannot_be_compared_have_no_rank():
    rows = SUITE["rewardbench"].read("sample://rewardbench").select(range(3))  # no section is whole
    table = SUITE["rewardbench"].results(rows, np.arange(6))
    metrics = [{"rewardbench/total": None}, {"rewardbench/total": 0.5}]
    [source] = league(SUITE, [{"rewardbench": table}] * 2, metrics)
    assert (source.title, source.ranks) == ("RewardBench", [None, None])
    assert league_table(["a", "b"], [source])[1] == [["a", "–"], ["b", ".500"]]


def test_the_page_has_scores_ranks_and_differences():
    source = compared(range(150), range(2, 153), range(80))
    headers, rows = league_table(MODELS, [source])
    assert headers == ["model", "pairs"]
    assert rows[2] == ["poor", ".400 [.100, .900] #3"]
    page = league_page(MODELS, [source], {})
    assert "| pairs | as good − poor |" in page
    assert "3 models" in page


def test_models_together_are_judged_by_their_mean_margin_and_by_where_they_disagree():
    tables = [{"pairs": pairs(right)} for right in (range(160), range(20, 180), range(160))]
    as_one = together({}, tables)
    # two of three decide; they agree on 20 … 159, all right, and on 180 …, all wrong
    assert as_one["pairs"]["accuracy_of_100"] == pytest.approx(0.8)
    assert as_one["pairs"]["accuracy_of_50"] == pytest.approx(140 / 160)
    page = league_page(MODELS, [compared(range(150), range(2, 153), range(80))], as_one)
    assert "## The models as one" in page
    assert ".800" in page


def test_the_picture_has_every_score_and_rank_legible():
    source = compared(range(150), range(2, 153), range(80))
    names = ["runs/hh-rlhf-helpful-base-with-a-long-name/round-0/model", "b", "c"]
    figure = league_figure(names, [source] * 4)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [".750\n#1"] * 4 + [".755\n#1"] * 4 + [".400\n#3"] * 4
    assert all(text.get_fontsize() >= 9 for text in axes.texts)
    assert axes.get_yticklabels()[0].get_text().endswith("round-0/model")
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[i + 1 :])
