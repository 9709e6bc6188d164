"""A run's changed pairs: the same for all rounds, with the texts of its embedder and generator in them."""

import pandas as pd
import pytest

from mars_core.data.samples import preferences
from mars_core.evaluation.robustness import ORIGINAL
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.steps.transform_pairs import transform_pairs

pytestmark = pytest.mark.usefixtures("without_prefect")

LONG = [row for row in preferences() if 200 < len(row["chosen"]) + len(row["rejected"]) < 400][:6]


@pytest.fixture
def changed(tmp_path):
    """The changed pairs of six held-out ones, by keys of `evaluation.robustness`."""

    def change(**robustness):
        values = {
            "name": "tiny", "folder": str(tmp_path), "evaluation": {"robustness": robustness},
            "generation": {"store": str(tmp_path / "store")},
        }  # fmt: skip
        with open_run(RunConfig.model_validate(values)) as run:
            rows = pd.DataFrame(LONG).rename(columns={"id": "pair_id"})
            found = transform_pairs(run, {"heldout": run.write_table("heldout.parquet", rows)})
            return {name: run.table(part) for name, part in found.items()}

    return change


def test_by_default_there_are_none(changed):
    assert changed() == {}


def test_words_are_deleted_by_the_runs_embedder(changed):
    table = changed(rows=4, transforms=["deleted_words"])["robustness"]
    assert (table["transform"] == ORIGINAL).sum() == 4
    before = table[table["transform"] == ORIGINAL].set_index("pair_id")
    for row in table[table["transform"] == "deleted_words"].itertuples():
        for part in ("chosen", "rejected"):
            assert len(getattr(row, part)) < len(before.loc[row.pair_id, part])


def test_paraphrases_come_from_the_runs_generator_and_pass_its_guards(changed, tmp_path):
    table = changed(rows=6, transforms=["paraphrase", "prompt_paraphrase"])["robustness"]
    before = table[table["transform"] == ORIGINAL].set_index("pair_id")
    after = table[table["transform"] == "paraphrase"]
    assert 0 < len(after) <= 6
    for row in after.itertuples():
        assert row.prompt == before.loc[row.pair_id, "prompt"]
        assert row.chosen != before.loc[row.pair_id, "chosen"]
        assert row.rejected != before.loc[row.pair_id, "rejected"]
    assert list((tmp_path / "store").iterdir())
