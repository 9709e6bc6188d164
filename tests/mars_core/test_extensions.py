"""What a configuration swaps by a name: what there is, a user's own, its keys, and what it counts by."""

import importlib
import itertools

import numpy as np
import pytest
import yaml

from mars_core.config import ConfigError, explained, known_keys, put, scientific, to_yaml, validated
from mars_core.evaluation.benchmarks.benchmark import BENCHMARKS
from mars_core.extensions import ExtensionError
from mars_core.files import sha256_of
from mars_core.generation.backends.backend import BACKENDS
from mars_core.generation.backends.rules import RulesBackend
from mars_core.method.selection import SelectionConfig
from mars_core.method.strategies.strategy import STRATEGIES, Signals
from mars_core.objectives.objective import OBJECTIVES
from tasks.compute.compute import COMPUTES
from tasks.run.run_config import RunConfig

POINTS = {
    "selection.strategy": STRATEGIES,
    "fit.objective.name": OBJECTIVES,
    "evaluation.benchmarks": BENCHMARKS,
    "generation.backend": BACKENDS,
    "compute.backend": COMPUTES,
}
BASES = {
    "selection.strategy": "mars_core.method.strategies.softmax:Softmax",
    "fit.objective.name": "mars_core.objectives.bradley_terry:BradleyTerry",
    "evaluation.benchmarks": "mars_core.evaluation.benchmarks.rewardbench:RewardBench",
    "generation.backend": "mars_core.generation.backends.rules:RulesBackend",
    "compute.backend": "tasks.compute.local:Local",
}
"""A class of this package that one of a user's own derives from."""
KEYS = {
    "selection.strategy": "selection.shyness",
    "fit.objective.name": "fit.objective.shyness",
    "generation.backend": "generation.options.shyness",
    "compute.backend": "compute.shyness",
}
"""Where a key of its own stands; benchmarks have none."""
SCIENTIFIC = [key for key in POINTS if key != "compute.backend"]
OWN = """
from typing import Annotated

from pydantic import Field

from mars_core.config import Operational
from {module} import {base}

NUMBER = 3


class Mine({base}):
    class Config({base}.Config):
        shyness: float = Field(0.5, ge=0)
        \"\"\"How shy it is.\"\"\"
        haste: Annotated[int, Operational()] = 1
        \"\"\"How hasty it is.\"\"\"
"""
UNFINISHED = """
from mars_core.method.strategies.strategy import Strategy


class Unfinished(Strategy):
    reads = frozenset({"margins"})
"""
names = (f"own_plugin_{number}" for number in itertools.count())


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module of a user's own, by default with a class for an extension point; its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(key=None, source=None):
        name = next(names)
        if source is None:
            module, _, base = BASES[key].partition(":")
            source = OWN.format(module=module, base=base)
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return name

    return write


def with_key(key, field):
    """The source of a plug-in that has a key of this name."""
    module, _, base = BASES[key].partition(":")
    source = OWN.format(module=module, base=base)
    return source.replace("        haste:", f"        {field}: str = 'its own'\n        haste:")


def chosen(key, name, **others):
    """The configuration of a run that names a plug-in, and further dotted keys."""
    values = {"name": "lark"}
    put(values, key, {name: "sample://rewardbench"} if key == "evaluation.benchmarks" else name)
    for other, value in others.items():
        put(values, other, value)
    return validated(RunConfig, values, "here")


def section_of(config, key):
    """The section that names the plug-in."""
    for part in key.split(".")[:-1]:
        config = getattr(config, part)
    return config


def refusal(key, name, **others):
    with pytest.raises(ConfigError) as error:
        chosen(key, name, **others)
    return str(error.value)


# What there is


def test_the_plug_ins_of_the_package_are_files_of_one_class_each():
    assert {key: point.names() for key, point in POINTS.items()} == {
        "selection.strategy": [
            "boost", "disagreement", "hardest", "information", "softmax", "uncertainty",
        ],
        "fit.objective.name": [
            "bayesian_nonnegative", "bradley_terry", "ensemble", "information_bottleneck", "ordinal",
            "paraphrase_consistency", "trajectory_consistency",
        ],
        "evaluation.benchmarks": [
            "best_of_n", "judgebench", "mrewardbench", "ppe_correctness", "ppe_human_preference",
            "rewardbench", "rewardbench2", "rewardmath", "rmb", "rmbench",
        ],
        "generation.backend": ["rules", "transformers", "vllm"],
        "compute.backend": ["local", "ray"],
    }  # fmt: skip
    for point in POINTS.values():
        for name in point.names():
            plugin = point.find(name)
            assert issubclass(plugin, point.base)
            assert plugin.__module__ == f"{point.package}.{name}"


@pytest.mark.parametrize(
    ("key", "name", "there", "nearest"),
    [
        ("selection.strategy", "hardst", ", ".join(STRATEGIES.names()), "hardest"),
        ("fit.objective.name", "bradley", ", ".join(OBJECTIVES.names()), "bradley_terry"),
        ("evaluation.benchmarks", "rmbench2", ", ".join(BENCHMARKS.names()), "rmbench"),
        ("generation.backend", "transformer", "rules, transformers, vllm", "transformers"),
        ("compute.backend", "here", "local, ray", "ray"),
    ],
    ids=list(POINTS),
)
def test_an_unknown_plug_in_is_named_with_what_there_is_and_the_nearest(key, name, there, nearest):
    said = refusal(key, name)
    assert said.startswith(f"here: {key}: there is no {POINTS[key].kind} {name!r}; there are {there}, or ")
    assert f"or module:attribute of your own. The nearest is {nearest}" in said


def test_a_section_made_by_hand_names_an_unknown_plug_in_too():
    with pytest.raises(ExtensionError, match=r"no selection strategy 'hardst'.* nearest is hardest"):
        SelectionConfig(strategy="hardst")


# A user's own


@pytest.mark.parametrize("key", POINTS)
def test_a_class_of_a_users_own_is_found_by_module_and_attribute(key, own):
    name = own(key)
    config = chosen(key, f"{name}:Mine")
    if key == "evaluation.benchmarks":
        opened = config.evaluation.suite["Mine"]
    else:
        opened = section_of(config, key).open()
    assert (type(opened).__module__, type(opened).__name__) == (name, "Mine")
    assert isinstance(opened, POINTS[key].base)


@pytest.mark.parametrize("key", POINTS)
def test_a_module_that_cannot_be_imported_is_named_with_what_it_raised(key, own):
    kind = POINTS[key].kind
    absent = refusal(key, "no_such_module:Mine")
    assert f"here: {key}: {kind} 'no_such_module:Mine': no_such_module cannot be imported " in absent
    assert "(ModuleNotFoundError: No module named 'no_such_module')" in absent
    assert "on the Python path wherever steps run" in absent
    broken = own(source="raise RuntimeError('a lark is no plug-in')\n")
    said = refusal(key, f"{broken}:Mine")
    assert f"{broken} cannot be imported (RuntimeError: a lark is no plug-in)" in said


@pytest.mark.parametrize("key", POINTS)
def test_an_attribute_that_is_not_there_or_of_another_kind_is_named(key, own):
    point, name = POINTS[key], own(key)
    said = refusal(key, f"{name}:Yours")
    assert f"{key}: {point.kind} '{name}:Yours': the module {name} has no Yours" in said
    for wrong in (f"{name}:NUMBER", f"{name}:Field", f"{own(next(k for k in POINTS if k != key))}:Mine"):
        expected = f"{key}: {point.kind} '{wrong}': is no class that derives from {point.base.__name__}"
        assert expected in refusal(key, wrong)


# Keys


@pytest.mark.parametrize(("key", "of_its_own"), KEYS.items(), ids=list(KEYS))
def test_a_plug_in_has_its_own_keys_with_their_defaults_and_limits(key, of_its_own, own):
    name = f"{own(key)}:Mine"
    section, _, field = of_its_own.rpartition(".")

    def keys_of(config):
        for part in section.split("."):
            config = getattr(config, part)
        return config

    assert getattr(keys_of(chosen(key, name)), field) == 0.5
    config = chosen(key, name, **{of_its_own: 2})
    assert getattr(keys_of(config), field) == 2.0
    plugin = section_of(config, key).open()
    assert plugin.config is section_of(config, key)
    said = refusal(key, name, **{of_its_own: -1})
    assert f"{of_its_own}: Input should be greater than or equal to 0; found -1" in said


def test_a_class_that_lacks_methods_of_its_kind_is_refused_and_they_are_named(own):
    name = f"{own(source=UNFINISHED)}:Unfinished"
    assert f"selection strategy '{name}': lacks log_q" in refusal("selection.strategy", name)


@pytest.mark.parametrize(("key", "of_its_own"), KEYS.items(), ids=list(KEYS))
def test_an_unknown_key_beside_a_plug_ins_own_is_named_with_the_nearest(key, of_its_own, own):
    said = refusal(key, f"{own(key)}:Mine", **{of_its_own.replace("shyness", "shynes"): 1})
    assert said == f"here: {of_its_own[:-1]}: no such key; the nearest is {of_its_own}"


@pytest.mark.parametrize(
    ("key", "name", "other"),
    [
        ("selection.strategy", "hardest", "selection.tau"),
        ("generation.backend", "rules", "generation.options.beams"),
    ],
    ids=["selection.strategy", "generation.backend"],
)
def test_a_key_of_another_plug_in_is_unknown(key, name, other):
    assert f"{other}: no such key; the nearest is " in refusal(key, name, **{other: 1})


@pytest.mark.parametrize(
    ("key", "taken"),
    [("selection.strategy", "budget"), ("fit.objective.name", "name"), ("compute.backend", "backend")],
    ids=["selection.strategy", "fit.objective.name", "compute.backend"],
)
def test_a_plug_in_whose_key_the_section_has_itself_is_refused_and_the_key_named(key, taken, own):
    said = refusal(key, f"{own(source=with_key(key, taken))}:Mine")
    assert f"here: {key}: Mine.Config has the keys {taken}, which the section has itself" in said


def test_a_backend_whose_keys_stand_apart_may_have_one_of_the_sections_names(own):
    name = f"{own(source=with_key('generation.backend', 'store'))}:Mine"
    config = chosen("generation.backend", name, **{"generation.options.store": "elsewhere"})
    assert (config.generation.store, config.generation.options.store) == ("generations", "elsewhere")


def test_a_strategy_of_a_users_own_reads_its_keys_when_it_is_asked(own):
    config = chosen("selection.strategy", f"{own('selection.strategy')}:Mine", **{"selection.tau": 2})
    assert list(config.selection.open().log_q(Signals(margins=np.array([1.0, -3.0])))) == [-2, 6]


def test_the_keys_of_a_plug_in_are_known_and_explained(own):
    config = chosen("selection.strategy", f"{own('selection.strategy')}:Mine")
    values = {"selection": {"strategy": config.selection.strategy}}
    assert {"selection.shyness", "selection.tau", "selection.budget"} <= set(known_keys(RunConfig, values))
    assert "selection.shyness" not in known_keys(RunConfig)
    assert "selection.shyness = 0.5\n    How shy it is.\n" in explained(config)
    assert f"[one of {', '.join(STRATEGIES.names())}; " in explained(config)


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("fit.loss", "fit.objective"),
        ("evaluation.rewardbench", "evaluation.benchmarks.rewardbench"),
        ("evaluation.rewardbench2", "evaluation.benchmarks.rewardbench2"),
        ("generation.base_url", "generation.options.base_url"),
        ("generation.extra_body", "generation.options.extra_body"),
        ("generation.beams", "generation.options.beams"),
        ("generation.device", "generation.options.device"),
    ],
    ids=str,
)
def test_a_renamed_key_names_the_new_one(old, now):
    assert refusal("selection.strategy", "softmax", **{old: 1}) == f"here: {old}: is {now} now"


# What it counts by


def version_of(config, key):
    """What a plug-in of a user's own counts by in the keys of steps."""
    section = scientific(config)
    for part in key.split(".")[:-1]:
        section = section[part]
    versions = [value for name, value in section.items() if name.endswith(" version")]
    return versions[0] if versions else None


@pytest.mark.parametrize("key", SCIENTIFIC)
def test_a_users_own_counts_by_the_digest_of_its_source(key, own, tmp_path):
    name = own(key)
    config, file = chosen(key, f"{name}:Mine"), tmp_path / f"{name}.py"
    before = version_of(config, key)
    assert before == sha256_of(file)
    file.write_text(file.read_text() + "\n# A change.\n")
    assert version_of(config, key) == sha256_of(file) != before


@pytest.mark.parametrize("key", SCIENTIFIC)
def test_a_users_own_counts_by_the_version_that_it_declares_instead(key, own, tmp_path):
    module, _, base = BASES[key].partition(":")
    declared = f"{OWN}\n    version = '2'\n".format(module=module, base=base)
    name = own(source=declared)
    config, file = chosen(key, f"{name}:Mine"), tmp_path / f"{name}.py"
    assert version_of(config, key) == "2"
    file.write_text(file.read_text() + "\n# A change.\n")
    assert version_of(config, key) == "2"
    raised = own(source=declared.replace("version = '2'", "version = '3'"))
    assert version_of(chosen(key, f"{raised}:Mine"), key) == "3"


def test_plug_ins_of_the_package_count_by_their_name_their_keys_and_a_version_that_they_declare():
    config = chosen("evaluation.benchmarks", "rewardbench", **{"selection.strategy": "hardest"})
    versions = {key: version_of(config, key) for key in SCIENTIFIC}
    assert versions == dict.fromkeys(SCIENTIFIC) | {"generation.backend": RulesBackend.version}
    assert scientific(config)["selection"] == {
        "strategy": "hardest",
        "margin": "signed",
        "budget": 2000,
        "budget_unit": "pairs",
        "cap": None,
    }


def test_operational_keys_of_a_plug_in_and_where_it_runs_do_not_count(own):
    config = chosen("selection.strategy", f"{own('selection.strategy')}:Mine")
    assert "shyness" in scientific(config)["selection"]
    assert "haste" not in scientific(config)["selection"]
    assert "compute" not in scientific(chosen("compute.backend", f"{own('compute.backend')}:Mine"))


# As text


@pytest.mark.parametrize(("key", "of_its_own"), KEYS.items(), ids=list(KEYS))
def test_a_configuration_that_was_written_is_read_with_the_keys_of_its_plug_in(key, of_its_own, own):
    config = chosen(key, f"{own(key)}:Mine", **{of_its_own: 2})
    values = yaml.safe_load(to_yaml(config))
    written = values
    for part in of_its_own.split("."):
        written = written[part]
    assert written == 2.0
    read = validated(RunConfig, values, "there")
    assert read == config
    assert scientific(read) == scientific(config)


def test_a_benchmark_of_a_users_own_is_written_by_its_name(own):
    name = f"{own('evaluation.benchmarks')}:Mine"
    config = chosen("evaluation.benchmarks", name)
    read = validated(RunConfig, yaml.safe_load(to_yaml(config)), "there")
    assert read.evaluation.sources == {"Mine": "sample://rewardbench"}
    assert (read, scientific(read)) == (config, scientific(config))
