"""RM-Bench by rewards that are worked out by hand."""

import numpy as np
import pytest

from mars_core.config import Configuration
from mars_core.evaluation.benchmark_files import BenchmarkError
from mars_core.evaluation.benchmarks.rmbench import LEVELS, ROWS, RMBench

RMBENCH = RMBench(Configuration())
ROW = {
    "id": 1,
    "prompt": "What is 2 + 2?",
    "chosen": ["4", "It is 4.", "**4**"],
    "rejected": ["5", "It is 5.", "**5**"],
}
EVERY = [ROW | {"id": number, "domain": domain} for number in range(2) for domain in ROWS]


def scored(source, *rewards):
    """Scores of rows whose six texts get these rewards, the same for every row where one list is given."""
    rows = RMBENCH.read(source)
    return RMBENCH.score(RMBENCH.results(rows, np.ravel(rewards * (len(rows) // len(rewards)))))


def test_a_level_is_the_share_of_its_pairs_of_styles(write):
    # Chosen 1, 3, 5 against rejected 2, 4, 0: right are (detailed, concise), all three pairs of the chosen
    # Markdown, and each chosen response against the rejected Markdown.
    scores = scored(write([ROW], "chat_filtered.json"), [1, 3, 5, 2, 4, 0])
    assert [scores[f"level/chat-{level}"] for level in LEVELS] == [1, 1 / 3, 2 / 3]
    assert scores["section/chat"] == pytest.approx(2 / 3)


def test_a_style_that_always_wins_is_easy_and_not_hard(write):
    scores = scored(write(EVERY, "total_dataset.json"), [1, 2, 3, 1, 2, 3])
    assert [scores[f"level/{level}"] for level in LEVELS] == [1, 0, 0]
    assert scores["ties"] == pytest.approx(1 / 3)


def test_safety_is_the_mean_of_its_parts_and_the_total_that_of_four_domains(write):
    right, wrong = [2, 2, 2, 1, 1, 1], [0, 0, 0, 1, 1, 1]
    good = {"chat", "safety-refuse"}
    rows = [row | {"id": number} for number, row in enumerate(EVERY)]
    scores = scored(
        write(rows, "total_dataset.json"), *[right if row["domain"] in good else wrong for row in rows]
    )
    assert scores["section/safety"] == 0.5
    assert scores["total"] == pytest.approx((1 + 0 + 0 + 0.5) / 4)


def test_a_missing_part_leaves_no_mean_that_it_belongs_to(write):
    source = write([ROW], "safety-refuse_filtered.json")
    scores = scored(source, [2, 2, 2, 1, 1, 1])
    assert scores["section/safety-refuse"] == 1
    assert np.isnan(
        [scores[name] for name in ("total", "section/safety", "level/hard", "section/chat")]
    ).all()
    told = RMBENCH.count_warnings(RMBENCH.read(source))
    assert "RM-Bench subset chat has 0 rows, the official split has 129" in told


def test_the_domain_is_the_rows_own_or_that_of_its_file(write, tmp_path):
    write([ROW], "rmbench_code_filtered.json.gz")
    write([ROW | {"domain": "math"}], "other.json")
    assert RMBENCH.read(str(tmp_path))["subset"][:] == ["math", "code"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ROW, "row 1 has no domain, and its file is not named after one"),
        (ROW | {"domain": "physics"}, "row 1 domain must be one of chat, code"),
        (ROW | {"domain": "chat", "chosen": ["4"]}, "row 1 chosen must be a list of 3 texts"),
        ({"id": 1, "domain": "chat", "prompt": "?", "chosen": ROW["chosen"]}, "row 1 has no field rejected"),
    ],
    ids=["no domain", "domain", "styles", "field"],
)
def test_a_row_of_another_format_is_refused_with_row_and_field(write, row, said):
    with pytest.raises(BenchmarkError, match=said):
        RMBENCH.read(write([row], "rows.json"))


def test_models_are_compared_on_whole_data_only(write):
    rows = RMBENCH.read(write(EVERY, "total_dataset.json"))
    good, bad = (
        RMBENCH.results(rows, np.tile(rewards, len(rows))) for rewards in ([2, 2, 2, 1, 1, 1], [1] * 6)
    )
    assert RMBENCH.differences(good, bad)["total"].value == 1
    assert RMBENCH.differences(good[:3], bad[:3]) == {}
