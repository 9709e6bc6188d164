"""Errors of a configuration name the key and what was found, and show no secret."""

import pytest

from mars_core.config import ConfigError
from mars_core.experiment import load
from tasks.run.run_config import RunConfig


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_text("name: tiny\n")
    return file


@pytest.mark.parametrize(
    "address",
    [
        "http://user:a-secret@host:5000",
        "http://a-secret@host:5000",
        "http://user:a-secret/more@host",
        "http://host:5000?token=a-secret",
        "postgresql+psycopg://user:a-secret@host/mlflow",
        "user:a-secret@host:5000",
    ],
)
@pytest.mark.parametrize("key", ["tracking.uri", "generation.options.base_url"])
def test_an_address_with_a_user_a_password_or_a_query_is_refused_and_not_shown(file, key, address):
    generation = ["generation.backend=vllm", "generation.model=m"]
    with pytest.raises(ConfigError, match="environment") as told:
        load(file, [*generation, f"{key}={address}"], RunConfig)
    assert "a-secret" not in str(told.value)
    assert told.value.__cause__ is None


def test_addresses_without_secrets_are_taken(file):
    for address in ("http://host:5000/mlflow", "sqlite:////home/me@work/mlflow.db", "databricks"):
        assert load(file, [f"tracking.uri={address}"], RunConfig).tracking.uri == address


@pytest.mark.parametrize(
    "change",
    ["generation.options.extra_body=a-secret", "generation.options.extra_body={key: [a-secret}"],
    ids=["no section", "no YAML"],
)
def test_a_field_of_requests_that_is_wrong_is_not_shown(file, change):
    with pytest.raises(ConfigError, match=r"generation\.options\.extra_body") as told:
        load(file, ["generation.backend=vllm", "generation.model=m", change], RunConfig)
    assert "a-secret" not in str(told.value)
