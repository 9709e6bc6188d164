"""The order of the packages, as pyproject.toml has it for the linter and docs/architecture.md for people."""

import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("mars_core", "tasks", "flows", "deployments")
SOURCES = [
    file.relative_to(REPOSITORY) for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py")
]
UPWARDS = [
    ("mars_core/model/scoring.py", "tasks.run.step"),
    ("tasks/steps/prepare.py", "flows.refine"),
    ("flows/refine.py", "deployments.deploy"),
    ("mars_core/model/scoring.py", "mars_core.fit.train"),
    ("mars_core/objectives/objective.py", "mars_core.model.scoring"),
    ("mars_core/evaluation/measure.py", "mars_core.report.round_tables"),
    ("tasks/run/progress.py", "tasks.steps.prepare"),
    ("tasks/compute/local.py", "tasks.run.compute_rewards"),
    ("mars_core/method/selection.py", "prefect"),
    ("mars_core/fit/train.py", "mlflow"),
    ("mars_core/model/scoring.py", "ray"),
]


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The sources in a folder of their own, where an import may be added."""
    folder = tmp_path_factory.mktemp("copied")
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


def lint(folder):
    """Run the linter of imports in a folder; its exit status and what it says, on one line."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return run.returncode, " ".join((run.stdout + run.stderr).split())


def lint_with(folder, file, imported):
    """As `lint`, with an import added to one file."""
    place = folder / file
    before = place.read_text()
    try:
        place.write_text(f"{before}\nimport {imported}\n")
        return lint(folder)
    finally:
        place.write_text(before)


def module_of(file):
    return ".".join(Path(file).with_suffix("").parts)


def test_the_sources_keep_the_order(copied):
    status, said = lint(copied)
    assert status == 0, said
    assert "0 broken" in said


@pytest.mark.parametrize(("file", "imported"), UPWARDS, ids=lambda one: one.replace("/", "."))
def test_an_import_upwards_is_found_and_named(copied, file, imported):
    status, said = lint_with(copied, file, imported)
    assert status == 1, said
    assert f"{module_of(file)} -> {imported}" in said


def test_two_packages_of_one_layer_do_not_import_each_other(copied):
    status, said = lint_with(copied, "mars_core/evaluation/measure.py", "mars_core.method.selection")
    assert status == 1, said
    assert "No cycles are allowed in mars_core." in said
    assert ".method -> .evaluation" in said


def test_the_page_tells_the_order_that_the_linter_keeps():
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert tuple(contracts["root_packages"]) == PACKAGES
    described = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    for contract in contracts["contracts"]:
        if contract["type"] == "layers":
            [package] = contract.get("containers", ["all"])
            layers = " → ".join(layer.replace(" : ", ", ") for layer in contract["layers"])
            row = f"{package} | {layers}"
            assert row in described.replace("`", ""), f"docs/architecture.md lacks: {row}"


def test_no_file_name_occurs_twice():
    names = Counter(file.name for file in SOURCES if file.parts[0] != "deployments")
    del names["__init__.py"]
    assert {name for name, times in names.items() if times > 1} == set()


def test_no_file_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
    assert [file for file in SOURCES if drawers & set(file.with_suffix("").parts)] == []
