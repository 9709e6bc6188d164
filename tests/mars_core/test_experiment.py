import json
import subprocess
import sys

import pytest

from mars_core.config import ConfigError, explained, known_keys, scientific, to_yaml, validated
from mars_core.experiment import ExperimentConfig, load
from mars_core.files import digest
from mars_core.generation import GenerationConfig
from tasks.run.run_config import RunConfig, load_run


@pytest.fixture
def write(tmp_path):
    """Write the text of a configuration file."""

    def write_text(text="name: lark\n"):
        path = tmp_path / "experiment.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


def refusal(file, *overrides, kind=ExperimentConfig):
    with pytest.raises(ConfigError) as error:
        load(file, overrides, kind)
    return str(error.value)


def test_a_name_is_all_that_a_configuration_needs(write):
    config = load(write())
    assert config == ExperimentConfig(name="lark")
    assert config.run_folder.as_posix() == "runs/lark"


def test_overrides_go_by_dotted_key_and_beat_the_file(write):
    file = write("name: lark\nselection: {tau: 0.1, budget: 7}\n")
    config = load(
        file,
        [
            "selection.tau=0.9",
            "fit.learning_rate=1e-5",
            "data.where.split=a=b",
            "data.subset=null",
            "rounds=4",
        ],
    )
    assert (config.selection.tau, config.selection.budget) == (0.9, 7)
    assert config.fit.learning_rate == 1e-5
    assert config.data.where == {"split": "a=b"}
    assert (config.data.subset, config.rounds) == (None, 4)


def test_a_resolved_configuration_can_be_loaded_again(write):
    config = load(write(), ["data.train=daten/größe.jsonl", "selection.cap=3", "data.where.fold=1"])
    text = to_yaml(config)
    assert load(write(text)) == config
    assert "größe" in text
    assert "max_length: 512" in text


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("selection.tua", "selection.tau"),
        ("seeds", "seed"),
        ("tau", "selection.tau"),
        ("model.learning_rate", "fit.learning_rate"),
        ("generation.paraphrase_chosen.temprature", "generation.paraphrase_chosen.temperature"),
    ],
    ids=str,
)
def test_an_unknown_key_is_named_with_the_nearest_known(write, key, nearest):
    assert f"{key}: no such key; the nearest is {nearest}" in refusal(write(), f"{key}=1")


def test_every_mistake_is_listed_by_its_dotted_key(write):
    file = write(
        "rounds: 0\nselection: {budget: 0, tau: .inf, margin: both}\nfit: 3\ntracking: {model: all}\n"
    )
    said = refusal(file, kind=RunConfig)
    assert said.startswith(f"{file}: ")
    for line in (
        "name: is required",
        "rounds: Input should be greater than or equal to 1; found 0",
        "selection.budget: Input should be greater than or equal to 1; found 0",
        "selection.tau: Input should be a finite number; found inf",
        "selection.margin: Input should be 'signed' or 'absolute'; found 'both'",
        "fit: Input should be a valid dictionary",
        "tracking.model: no such key; the nearest is tracking.models",
    ):
        assert line in said


def test_a_name_that_would_leave_its_folder_is_refused(write):
    assert "name: String should match" in refusal(write("name: ../lark\n"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("selection.tau", "'selection.tau': an override reads key=value"),
        ("=3", "an override reads key=value"),
        ("data.train=[", "data.train: the value is not YAML"),
        ("seed.high=3", "seed.high: seed is no section"),
    ],
    ids=str,
)
def test_an_override_that_cannot_be_applied_is_named(write, override, said):
    assert said in refusal(write("name: lark\nseed: 1\n"), override)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no configuration"), ("- name\n", "holds no configuration"), ("name: [\n", "not YAML")],
    ids=["empty", "list", "broken"],
)
def test_a_file_that_holds_no_configuration_is_named(write, text, said):
    file = write(text)
    assert refusal(file).startswith(f"{file}: {said}")


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path):
    absent, binary = tmp_path / "absent.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"\x80\x81")
    assert refusal(absent) == f"{absent}: No such file or directory"
    assert refusal(binary).startswith(f"{binary}: not YAML")


def test_operational_keys_are_not_scientific():
    values = scientific(RunConfig(name="lark"))
    assert values["selection"]["tau"] == 0.5
    assert values["seed"] == 0
    assert values["tracking"] == {}
    assert "compute" not in values
    assert not {"name", "folder", "rounds"} & set(values)
    assert not {"device", "batch_tokens"} & set(values["model"])
    assert not {"base_url", "concurrency", "store"} & set(values["generation"])
    served = scientific(GenerationConfig(backend="vllm", model="m"))
    assert not {"base_url", "concurrency", "store"} & (set(served) | set(served["options"]))


def test_a_key_that_came_later_changes_no_digest_until_it_is_set(write):
    plain = scientific(load_run(write()))
    assert not {"head", "rendering"} & set(plain["model"])
    for change in ("model.head=v_head", "model.rendering=pair"):
        assert digest(scientific(load_run(write(), [change]))) != digest(plain)


def test_models_count_by_what_the_caller_says_is_in_them():
    config = ExperimentConfig(name="lark", generation={"backend": "vllm", "model": "m"})
    values = scientific(config, lambda reference: f"what is in {reference}")
    assert values["model"]["backbone"] == f"what is in {config.model.backbone}"
    assert values["semantics"]["embedder"] == f"what is in {config.semantics.embedder}"
    assert values["generation"]["model"] == "what is in m"
    assert values["generation"]["backend"] == "vllm"
    assert scientific(config)["generation"]["model"] == "m"
    assert scientific(ExperimentConfig(name="lark"), str.upper)["generation"]["model"] is None


def test_only_scientific_keys_change_the_digest(write):
    def of(*overrides):
        return digest(scientific(load_run(write(), overrides)))

    operational = [
        "rounds=9",
        "model.device=cpu",
        "model.batch_tokens=8",
        "tracking.models=none",
        "compute.backend=local",
        "name=other",
    ]
    assert of(*operational) == of()
    assert len({of(), of("seed=1"), of("selection.cap=3"), of("data.where.fold=1")}) == 4


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """What another process that reads a configuration has of it: the file, its digest, what it imported."""
    file = tmp_path_factory.mktemp("elsewhere") / "tiny.yaml"
    file.write_text(to_yaml(ExperimentConfig(name="tiny")))
    program = (
        "import json, sys; from mars_core.config import scientific; from mars_core.experiment import load;"
        "from mars_core.files import digest; "
        "print(json.dumps([digest(scientific(load(sys.argv[1]))), list(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    return file, *json.loads(done.stdout)


def test_the_digest_is_the_same_in_another_process(elsewhere):
    file, there, _ = elsewhere
    assert there == digest(scientific(load(file)))


def test_every_key_is_explained():
    text = explained(RunConfig(name="lark"))
    lines = text.splitlines()
    keys = [line.partition(" = ")[0] for line in lines[::2]]
    sections = {"data", "model", "selection", "fit", "generation.paraphrase_chosen", "tracking"}
    assert set(keys) | sections <= set(known_keys(RunConfig))
    assert {
        "selection.tau",
        "generation.paraphrase_chosen.top_p",
        "generation.launch.command",
        "rounds",
    } <= set(keys)
    assert all(meaning.strip().partition("[")[0] for meaning in lines[1::2])
    assert "rounds = 3\n    Rounds of self-refinement, T; may grow between starts. [operational]\n" in text


def test_a_key_is_explained_with_its_choices_and_its_default(write):
    text = explained(load(write(), ["selection.margin=absolute", "model.device=cpu"]))
    assert '[one of signed, absolute; default "signed"]\n' in text
    assert '[default "auto"; operational]\n' in text


def test_what_is_wrong_with_a_section_as_a_whole_is_told_without_its_values(write):
    said = refusal(write(), "selection.budget_unit=paraphrases", "augmentation.top_up=true")
    assert ": augmentation.top_up=true counts synthetic pairs" in said
    assert "found" not in said


@pytest.mark.parametrize("augmentation", [{"top_up": True}, {"pool": 3}, {"scheme": "repeat"}], ids=str)
def test_a_budget_of_paraphrases_is_refused_where_pairs_are_counted(augmentation):
    values = {"name": "tiny", "augmentation": augmentation}
    assert validated(ExperimentConfig, values, "here").selection.budget_unit == "pairs"
    with pytest.raises(ConfigError, match=r"augmentation\..* counts synthetic pairs, but selection\."):
        validated(ExperimentConfig, values | {"selection": {"budget_unit": "paraphrases"}}, "here")


def test_a_configuration_is_read_without_what_only_a_model_needs(elsewhere):
    slow = {"transformers.modeling_utils", "torch._dynamo", "torch.distributed.tensor", "peft", "matplotlib"}
    assert slow.isdisjoint(elsewhere[2])
