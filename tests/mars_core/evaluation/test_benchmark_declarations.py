"""What every benchmark of the package declares, which tables and pages show."""

import pytest

from mars_core.evaluation.benchmarks.benchmark import BENCHMARKS


@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_each_score_that_is_shown_has_a_definition_and_a_label_of_its_own(name):
    one = BENCHMARKS.find(name)
    assert next(iter(one.definitions)) == one.headline
    assert set(one.sections) <= set(one.definitions)
    labels = [score.rpartition("/")[2] for score in one.definitions]
    assert len(set(labels)) == len(labels)
    assert "wrong" in one.equal_rewards
