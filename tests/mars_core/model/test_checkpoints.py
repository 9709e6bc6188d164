"""How models are named."""

import json

import pytest

from mars_core.errors import ModelError
from mars_core.model.checkpoints import content_of_checkpoint, locate


def test_a_folder_is_found_from_home_too(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/model") == (str(tmp_path / "model"), None)


def test_a_hub_model_is_named_with_its_revision():
    assert locate("team/model@abc") == ("team/model", "abc")
    for unpinned in ("team/model", "team/model@"):
        with pytest.raises(ModelError, match="as in team/model@main"):
            locate(unpinned)


def test_the_content_of_adapters_is_that_of_their_base_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("one")
    about = {"base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(about))
    before = content_of_checkpoint("~/adapter")
    assert before == content_of_checkpoint(str(tmp_path / "adapter"))
    (tmp_path / "base/weights").write_text("two")
    assert content_of_checkpoint("~/adapter") != before
    assert content_of_checkpoint("team/model@abc") == "team/model@abc"
