"""The command `mars`. Imports what a command needs when it is called, so that `mars --help` is quick."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mars_core.errors import MarsError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from flows.evaluate import EvaluateConfig
    from mars_core.report.comparison_report import ComparisonReport
    from mars_core.report.run_report import RunReport
    from tasks.processes.prefect_server import PrefectApi
    from tasks.run.run_config import TrackingConfig

app = typer.Typer(
    name="mars",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console()
KEYS = "KEY=VALUE"
Experiment = Annotated[Path, typer.Argument(metavar="FILE", help="Experiment configuration (YAML).")]
ExperimentKeys = Annotated[
    list[str] | None,
    typer.Argument(metavar=KEYS, help="Changes of the configuration, such as selection.tau=0.1."),
]
Comparison = Annotated[Path, typer.Argument(metavar="FILE", help="Configuration of a comparison (YAML).")]
ComparisonKeys = Annotated[
    list[str] | None,
    typer.Argument(
        metavar=KEYS,
        help="Changes: experiment.selection.tau=0.1 of all arms, arms.NAME.selection.tau=0.1 of one.",
    ),
]
Retraining = Annotated[Path, typer.Argument(metavar="FILE", help="Configuration of a retraining (YAML).")]
RetrainingKeys = Annotated[
    list[str] | None,
    typer.Argument(
        metavar=KEYS, help="Changes: gate.margin=0.1, or refine.selection.tau=0.1 of its experiment."
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Check all artifacts and sources against their digests, not only where a size or time changed.",
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/quickstart.")]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"mars {version('mars')}")
        raise typer.Exit


@app.callback()
def mars(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Reward models from few preference pairs, by margin- and semantic-aware augmentation in rounds.

    Begin with:  mars refine deployments/experiments/quickstart.yaml
    """
    _ask_this_machine_directly()


def _ask_this_machine_directly() -> None:
    """Leave the servers on this machine out of what a proxy of the environment is asked for."""
    hosts = ["localhost", "127.0.0.1", "::1"]
    for name in ("no_proxy", "NO_PROXY"):
        given = [host for host in os.environ.get(name, "").split(",") if host.strip()]
        os.environ[name] = ",".join([*given, *(host for host in hosts if host not in given)])


@app.command()
def refine(
    file: Experiment,
    overrides: ExperimentKeys = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate requests, tokens, steps, disk and hours; run nothing.")
    ] = False,
    verify: Verify = False,
) -> None:
    """Run rounds of self-refinement; started again, continue after the last finished step."""
    with _told_errors():
        from tasks.run.run_config import load_run

        config = load_run(file, overrides or [])
        if dry_run:
            from tasks.inspect.estimate import estimate

            _print_pairs("Estimate", estimate(config))
            return
        if verify:
            _forget_digests(config.run_folder)
        from tasks.run.preflight import check

        check(config)
        with _prefect(config.run_folder, config.tracking):
            from flows.refine import refine as refine_flow

            report = refine_flow(str(file), tuple(overrides or ()))
        _print_rounds(report)
        _say(f"\nReport:     {config.run_folder / 'report.md'}")
        _say("Look at it: mars ui        (Prefect and MLflow in the browser)")


def _forget_digests(*runs: Path) -> None:
    from mars_core.files import RememberedDigests
    from tasks.run.run_folder import DIGESTS

    for folder in runs:
        RememberedDigests(folder / DIGESTS).forget()


@app.command()
def preview(
    file: Experiment,
    overrides: ExperimentKeys = None,
    pairs: Annotated[int, typer.Option(min=1, help="How many of the hardest pairs to try.")] = 3,
    output: Annotated[
        Path | None, typer.Option(help="Markdown file to write instead of printing the page.")
    ] = None,
) -> None:
    """Show what the generator makes of a few of the hardest pairs, before a long run on all of them.

    Each request as it is sent, each sample with the verdict of each guard, the pairs that come out, and what
    the run would cost at these rates. The answers are kept: the run does not pay for them again.
    """
    with _told_errors():
        from tasks.inspect.preview import preview as page
        from tasks.run.run_config import load_run

        with _messages_shown():
            paragraphs = page(load_run(file, overrides or []), pairs)
            if output is None:
                for paragraph in paragraphs:
                    print(paragraph, end="\n\n", flush=True)
                return
            output.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
        _say(f"Written to {output}")


@app.command()
def compare(
    file: Comparison,
    overrides: ComparisonKeys = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the cells and estimate one of them; run nothing.")
    ] = False,
    verify: Verify = False,
) -> None:
    """Run arms × seeds, everything else held equal; started again, run what is missing."""
    with _told_errors():
        from mars_core.comparison import load_comparison
        from tasks.comparing.cells import cells_of, tuning_cells_of
        from tasks.run.preflight import check

        config = load_comparison(file, overrides or [])
        compared, tried = cells_of(config), tuning_cells_of(config)
        cells = [*compared, *tried]
        first_of_each_arm = [cell.experiment for cell in cells[: len(config.arms)]]
        if dry_run:
            from tasks.inspect.estimate import estimate

            counts = {"cells": f"{len(compared):,}", "cells that try settings": f"{len(tried):,}"}
            last = compared[len(config.arms) - 1]
            _print_pairs(f"Estimate of one cell of {last.arm}", counts | estimate(last.experiment))
            if config.align is not None:
                from flows.align import estimate_alignment
                from tasks.comparing.alignments import alignment_of

                of_one = estimate_alignment(alignment_of(config, last))
                _print_pairs("Estimate of one alignment; the first cell's samples serve all", of_one)
            return
        if verify:
            _forget_digests(*(cell.experiment.run_folder for cell in cells))
        check(*first_of_each_arm)
        with _prefect(config.root, first_of_each_arm[0].tracking):
            from flows.compare import compare as compare_flow

            report = compare_flow(str(file), tuple(overrides or ()))
        _print_arms(report)
        _say(f"\nReport:     {config.root / 'results.md'}")
        if report.failed:
            raise typer.Exit(1)


@app.command()
def retrain(
    file: Retraining,
    overrides: RetrainingKeys = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Restore the previous champion; train nothing.")
    ] = False,
    promote: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="Make a version champion that you have judged, such as the challenger; train nothing.",
        ),
    ] = None,
    readmit: Annotated[
        str | None,
        typer.Option(
            metavar="DIGEST",
            help="Let a refused or quarantined delivery take part in the next retraining; train nothing.",
        ),
    ] = None,
    verify: Verify = False,
) -> None:
    """Train on new preference pairs, from the champion; promote the result if it passes the gate.

    Ends with status 1 where the gate refuses it. Started again after a crash, the same cycle goes on.
    """
    with _told_errors():
        from tasks.retraining.ledger import Ledger
        from tasks.retraining.retrain_config import load_retraining

        config = load_retraining(file, overrides or [])
        if verify:
            _forget_digests(config.root, *config.root.glob("cycles/*"))
        if readmit is not None:
            digest, before = Ledger.of(config.root).readmit(readmit)
            now = (
                "takes part again"
                if before.state == "refused"
                else "is read again, for its good rows, at the next look"
            )
            _say(f"{before.file} ({digest[:12]}) was {before.state} ({before.reason}); it {now}.")
            return
        from tasks.retraining.retrain_config import cycle_experiment

        with _prefect(config.root, cycle_experiment(config, 1, None).tracking):
            from flows.retrain import promote_by_hand, roll_back
            from flows.retrain import retrain as retrain_flow

            if promote is not None:
                _say(promote_by_hand(str(file), promote, tuple(overrides or ())))
                return
            if rollback:
                _say(roll_back(str(file), tuple(overrides or ())))
                return
            outcome = retrain_flow(str(file), tuple(overrides or ()))
        _say(f"\n{outcome.name}: {outcome.message}")
        if outcome.name == "Refused":
            raise typer.Exit(1)


@app.command()
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|KEY=VALUE",
            help="Checkpoint folders, package://NAME, hub/name@revision, or models:/NAME@ALIAS in MLflow; "
            "and settings, dotted.key=value, as in model.max_length=1024 or model.device=cuda.",
        ),
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="quick|standard|FILE",
            help="A suite of benchmarks, or a YAML file with the keys of one; further options add to it.",
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SOURCE",
            help="A benchmark, such as rewardbench=allenai/reward-bench@REVISION, rewardbench2=FILE, or "
            "my_module:Mine=FILE of a class of your own; may be repeated.",
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Preference pairs: a file, a folder, NAME@REVISION[:SPLIT], or sample://preferences.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results; by default evaluations/NAME, and evaluations for several models.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail where a benchmark lacks its official row counts."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate texts, tokens and hours; score nothing.")
    ] = False,
    mlflow: Annotated[
        str | None, typer.Option(metavar="RUN", help="Id of an MLflow run that gets metrics and files.")
    ] = None,
) -> None:
    """Score any sequence-classification reward models on benchmarks and your own pairs.

    Prints the scores with 95% intervals and definitions, and writes a table of rewards for each source,
    summary.json with all metrics, and a page. Several models get a league table too. Without a source it uses
    the built-in samples of RewardBench and RewardBench 2. Started again after an interruption, it goes on.

    mars evaluate MODEL --benchmark rewardbench=allenai/reward-bench@main --pairs my_pairs.jsonl

    mars evaluate MODEL OTHER --suite quick
    """
    with _told_errors():
        from flows.evaluate import configuration, estimates
        from tasks.tracking.mlflow_server import check_mlflow
        from tasks.tracking.mlflow_store import tracking_uri

        references = [given for given in models if not _is_setting(given)]
        if not references:
            raise typer.BadParameter("name a model")
        named = {
            "evaluation.strict": strict or None,
            "data.heldout": pairs,
            "mlflow_run": mlflow,
        }
        changes = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]
        changes += [given for given in models if _is_setting(given)]
        if len(references) == 1 and output:
            changes.append(f"output={json.dumps(output)}")
        folder = output or "evaluations"
        benchmarks = _named_sources(benchmark)
        configs = [
            configuration(reference, changes, suite=suite, benchmarks=benchmarks, folder=folder)
            for reference in references
        ]
        if dry_run:
            for title, facts in estimates(configs).items():
                _print_pairs(title, facts)
            return
        if mlflow:
            check_mlflow(tracking_uri(configs[0].tracking))
        if len(configs) > 1:
            _evaluate_several(configs, folder)
        else:
            _evaluate_one(configs[0])


def _evaluate_one(config: "EvaluateConfig") -> None:
    from tasks.steps.measure_checkpoint import HEADERS, headlines

    with _prefect(Path(config.output)):
        from flows.evaluate import evaluate as evaluate_flow

        summary = evaluate_flow(config)
    table = Table(*HEADERS, title=Text(config.model.backbone), title_justify="left")
    for row in headlines(summary["metrics"], summary["definitions"]):
        table.add_row(*row)
    console.print(table)
    for note in summary["notes"]:
        _say(f"Note: {note}")
    _say(f"\nPage:        {Path(config.output) / 'evaluation.md'}")
    _say(f"All metrics: {Path(config.output) / 'summary.json'}")


def _evaluate_several(configs: "list[EvaluateConfig]", folder: str) -> None:
    from mars_core.report.evaluation_report import league_table

    with _prefect(Path(folder)):
        from flows.evaluate import evaluate_models

        models, sources = evaluate_models(configs, folder)
    headers, rows = league_table(models, sources)
    table = Table(*headers, title=f"{len(models)} models", title_justify="left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    _say(f"\nPage: {Path(folder) / 'league.md'}")


@app.command()
def score(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL FILE…|KEY=VALUE",
            help="The model, as of mars evaluate; files, folders, addresses or hub data sets, or - for "
            "JSON lines from standard input; and settings, as in model.max_length=1024.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder for the scores; by default they are printed as JSON lines."),
    ] = None,
    invalid: Annotated[
        Literal["error", "drop"],
        typer.Option(help="drop: leave out rows that cannot be scored, and name and count them."),
    ] = "error",
) -> None:
    """Score pairs or single responses in any format that is read: rewards and margins beside the ids.

    With --output, a start that was killed goes on where it was, and files that are new in a folder are added.
    Progress goes to standard error. Needs no server.

    mars score MODEL answers.jsonl | jq .reward

    mars score MODEL pairs/ --output scores
    """
    with _told_errors(), _messages_shown():
        from mars_core.config import override, validated
        from tasks.using.score_files import PICTURE, SUMMARY, ScoreConfig, score_files

        model, *files = [one for one in given if not _is_setting(one)]
        if not files:
            raise typer.BadParameter("name a model, and what it scores")
        values = {
            "model": {"backbone": model},
            "files": files,
            "output": output,
            "data": {"invalid": invalid},
        }
        override(values, [one for one in given if _is_setting(one)])
        try:
            summary = score_files(validated(ScoreConfig, values, "mars score"))
        except BrokenPipeError:  # whoever read them wants no more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if output:
            _say(f"{summary['scores']:,} scores: {output}/scores/, {SUMMARY}, {PICTURE}")


def _is_setting(given: str) -> bool:
    """Whether an argument is `dotted.key=value`, and no model of that name."""
    key, equals, _ = given.partition("=")
    return bool(equals) and all(part.isidentifier() for part in key.split(".")) and not Path(given).exists()


@app.command()
def align(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Configuration of an alignment (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar=KEYS, help="Changes of the configuration, such as samples=32."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Estimate requests, tokens and texts to score; run nothing.")
    ] = False,
) -> None:
    """Sample a policy, measure the choice of the best of n by reward models, train; started again, go on.

    With a second reward model as gold it tells whether responses get better, or only please the first.
    """
    with _told_errors():
        from tasks.run.align_config import load_alignment

        config = load_alignment(file, overrides or [])
        if dry_run:
            from flows.align import estimate_alignment

            _print_pairs("Estimate", estimate_alignment(config))
            return
        with _prefect(config.run_folder, config.tracking):
            from flows.align import align as align_flow

            report = align_flow(str(file), tuple(overrides or ()))
        from mars_core.report import alignment_report, training_section

        tables = [(report.name, *alignment_report.rows(report.found, report.metrics))]
        if report.trained:
            tables.append((report.trained.method, *training_section.rows(report.trained)))
        for title, headers, table_rows in tables:
            table = Table(*headers, title=title, title_justify="left")
            for row in table_rows:
                table.add_row(*row)
            console.print(table)
        _say(report.sentence)
        _say(f"\nReport: {config.run_folder / 'report.md'}")


@app.command()
def winrate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Recorded judgements: AlpacaEval's annotations, or this project's; .json, .jsonl, also .gz. "
            "With --judge, responses of two models that are to be judged.",
        ),
    ],
    recorded: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Judgements of the same responses, to tell how far the two agree."),
    ] = None,
    judge: Annotated[
        Path | None,
        typer.Option(
            metavar="YAML", help="Ask a chat model for the judgements: keys as those of `generation`."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for winrate.md, winrate.json, winrate.png and what a judge said."
        ),
    ] = None,
) -> None:
    """Compute win rates: plain, with bounds, and length-controlled; from recorded judgements, or by a judge.

    A judge sees both orders, and each of its answers is kept: started again, it is asked for the missing ones
    alone. Answers that could not be read are missing, and are never guessed.
    """
    with _told_errors(resumable=judge is not None):
        from mars_core.alignment.judgements import read_judgements
        from mars_core.alignment.win_rates import agreement, win_rates
        from mars_core.report.win_rate_report import rows, write

        if judge:
            from tasks.aligning.judge_responses import judge_responses

            if output is None:
                raise typer.BadParameter("--judge needs --output, a folder for what the judge says")
            file = judge_responses(file, judge, output)
        judgements = read_judgements(str(file))
        other = agreement(judgements, read_judgements(str(recorded))) if recorded else None
        rates = win_rates(judgements)
        title = f"{judgements.model} against {judgements.baseline}"
        table = Table(title=Text(title), title_justify="left")
        for name in ("", "%", ""):
            table.add_column(name, no_wrap=name == "%")
        for row in rows(judgements, rates, other):
            table.add_row(*map(Text, row))
        console.print(table)
        for note in rates.notes:
            _say(f"Note: {note}")
        if output:
            write(judgements, rates, other, output)
            _say(f"\nPage: {output / 'winrate.md'}")


@app.command()
def config(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Configuration of an experiment, comparison, retraining or alignment."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar=KEYS, help="Changes of its keys, in full.")
    ] = None,
    explain: Annotated[
        bool, typer.Option(help="Print every key with its meaning and default instead.")
    ] = False,
) -> None:
    """Print the resolved configuration; an unknown key is an error that names the nearest one.

    The experiment inside a comparison or a retraining is printed as its file has it; --explain also shows the
    defaults of the keys that it leaves out.
    """
    with _told_errors():
        from mars_core.comparison import load_comparison
        from mars_core.config import explained, read, to_yaml
        from tasks.comparing.alignments import alignment_of
        from tasks.comparing.cells import cells_of
        from tasks.retraining.retrain_config import cycle_experiment, load_retraining
        from tasks.run.align_config import load_alignment
        from tasks.run.run_config import load_run

        values, changes = read(file, overrides or []), overrides or []
        resolved: BaseModel
        experiments: dict[str, BaseModel] = {}
        heading = ""
        if "arms" in values:
            resolved = comparison = load_comparison(file, changes)
            first = cells_of(comparison)[0]
            heading = f"\n# With what a comparison sets itself, as of arm {first.arm}, seed {first.seed}:\n\n"
            experiments["experiment."] = first.experiment
            if comparison.align is not None:
                experiments["align."] = alignment_of(comparison, first)
        elif "refine" in values:
            resolved = retraining = load_retraining(file, changes)
            experiments["refine."] = cycle_experiment(retraining, 1, None)
        elif "policy" in values:
            resolved = load_alignment(file, changes)
        else:
            resolved = load_run(file, changes)
        if not explain:
            print(to_yaml(resolved), end="")
            return
        print(explained(resolved, ""), end=heading)
        for prefix, section in experiments.items():
            print(explained(section, prefix), end="")


@app.command()
def show(run: RunPath) -> None:
    """Print a run's table of rounds and where its report is."""
    with _told_errors(resumable=False):
        from tasks.run.run_folder import existing_run
        from tasks.steps.write_report import run_report

        found = existing_run(run)
        report = run_report(found)
        _print_rounds(report)
        finished, wanted = len(report.rounds) - 1, found.config.rounds
        if finished < wanted:
            _say(f"\n{finished} of {wanted} rounds are finished; the report comes with the last.")
        else:
            _say(f"\nReport: {run / 'report.md'}")


@app.command()
def explain(
    run: RunPath, synthetic_id: Annotated[str, typer.Argument(help="Id of a synthetic pair.")]
) -> None:
    """Follow a synthetic pair back to its original, its requests, and the margin that bought it."""
    with _told_errors(resumable=False):
        from tasks.inspect.lineage import lineage

        for title, facts in lineage(run, synthetic_id).items():
            _print_pairs(title, facts)


@app.command()
def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a run; with --format model also a model.")
    ],
    format: Annotated[
        Literal["hh", "trl", "parquet", "model"],
        typer.Option(help="hh: transcripts; trl: conversations; model: the best round's model, whole."),
    ] = "trl",
    output: Annotated[
        Path | None,
        typer.Option(help="File to write, or folder of the model; by default beside the run's artifacts."),
    ] = None,
) -> None:
    """Write the synthetic pairs of all rounds, or the model, for use elsewhere, with a card.

    A model is written as plain transformers, TRL and vLLM load it: adapters merged, one output, safetensors.
    """
    with _told_errors(resumable=False):
        from tasks.inspect.export import export_model, export_pairs

        if format == "model":
            if output is None and not (Path(run) / "config.yaml").exists():
                raise typer.BadParameter("name a folder for the model: --output")
            _say(f"Written to {export_model(run, output or Path(run) / 'model')}, with its card README.md")
            return
        file, rows = export_pairs(Path(run), format, output)
        _say(f"{rows:,} synthetic pairs written to {file}, and their card beside it")


@app.command()
def publish(
    what: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="Folder of a run, whose best round counts, or a model.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="Repository on the hub.")],
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Publish the run's synthetic pairs, as a data set, instead.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Licence to name in the card: apache-2.0, …")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the card and the files; send nothing.")
    ] = False,
) -> None:
    """Put a model, or synthetic pairs, with a card into a repository of the Hugging Face hub; private.

    The token is taken from HF_TOKEN. What reached the hub is read back and has to score the same; the
    revision is printed, and kept in MLflow.
    """
    with _told_errors(), _messages_shown():
        from mars_core.model.reward_model import ModelConfig
        from tasks.run.run_config import TrackingConfig
        from tasks.using import publish as publishing
        from tasks.using.describe import hub, licences

        publishing.check_repository(to)
        licence_of = licences(hub())
        stage = (
            publishing.staged_pairs(Path(what), licence, licence_of)
            if pairs
            else publishing.staged_model(
                what, ModelConfig(), licence=licence, tracking=TrackingConfig(), licence_of=licence_of
            )
        )
        with stage as staged:
            if dry_run:
                print(staged.card)
                visible = "public" if public else "private"
                _print_pairs(f"{to}, {visible}: nothing was sent", _sizes(staged.files))
                return
            published = publishing.publish(staged, to, public=public)
        _say(f"{published.address}\nRevision: {published.repository}@{published.revision}")


def _sizes(files: dict[str, int]) -> dict[str, str]:
    return {name: f"{size:,} bytes" for name, size in files.items()}


@app.command()
def serve(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|KEY=VALUE",
            help="The model, as of mars evaluate; and settings, as in model.precision=float32.",
        ),
    ],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8001,
) -> None:
    """Serve a reward model by vLLM on 127.0.0.1, until Ctrl-C.

    Before the address is printed, the server's rewards of some texts are compared with the model's own. The
    server asks for the key in VLLM_API_KEY.
    """
    with _told_errors(), _messages_shown():
        from mars_core.config import override, validated
        from tasks.using.serve import ServeConfig, served

        models = [one for one in given if not _is_setting(one)]
        if len(models) != 1:
            raise typer.BadParameter("name one model")
        values = {"model": {"backbone": models[0]}, "port": port}
        override(values, [one for one in given if _is_setting(one)])
        with served(validated(ServeConfig, values, "mars serve"), Path("vllm-serve.log")) as server:
            _say(f"{server.parity}.\n\n{server.curl}\n")
            _say("In a container, of a folder that `mars export MODEL --format model` has written:")
            _say(f"{server.container}\n\nCtrl-C ends the server.")
            _wait()


@app.command()
def ui(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run whose own tracking.uri is to be shown.")
    ] = None,
) -> None:
    """Serve Prefect and MLflow on the stores that `mars refine` writes to, until Ctrl-C.

    Of servers that are configured (PREFECT_API_URL, MLFLOW_TRACKING_URI), print the addresses.
    """
    with _told_errors():
        from tasks.processes.prefect_server import PREFECT_PORT, prefect_api
        from tasks.run.run_config import TrackingConfig
        from tasks.run.run_folder import existing_run
        from tasks.tracking.mlflow_server import mlflow_server
        from tasks.tracking.mlflow_store import runs_page, tracking_uri

        tracking = existing_run(run).config.tracking if run else TrackingConfig()
        _say("Starting Prefect …")
        with prefect_api(PREFECT_PORT) as prefect:
            _say(f"Prefect: {prefect.page}{_login(prefect)}\nStarting MLflow …")
            with mlflow_server(tracking_uri(tracking)) as mlflow:
                _say(f"MLflow:  {runs_page(tracking, mlflow)}\nCtrl-C ends what was started.")
                _wait()


@contextmanager
def _messages_shown() -> Iterator[None]:
    """Print what is told outside of a flow to standard error."""
    logger, handler = logging.getLogger("mars"), logging.StreamHandler()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False  # Prefect would print them again
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def _named_sources(given: list[str] | None) -> dict[str, str]:
    """`NAME=SOURCE` options as a mapping."""
    from mars_core.config import ConfigError

    sources = {}
    for text in given or []:
        name, equals, source = text.partition("=")
        if not (name and equals and source):
            raise ConfigError(f"--benchmark {text!r}: reads NAME=SOURCE, as in rewardbench=FILE")
        sources[name] = source
    return sources


def _wait() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        _say("Ended.")


@contextmanager
def _told_errors(resumable: bool = True) -> Iterator[None]:
    """Say what a person can mend in a sentence, and leave stack traces to what nobody foresaw.

    A request to end, such as a service manager's, is treated as Ctrl-C, so that all children end as well.
    """
    errors = Console(stderr=True)
    if errors.is_terminal:  # nothing else is printed for the seconds that torch and Prefect take
        errors.print("Loading packages …", style="dim")

    def end(number: int, frame: FrameType | None) -> None:
        errors.print("mars: ending what was started …", style="dim")
        signal.default_int_handler(number, frame)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else a shell has it ignored
        before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        yield
    except MarsError as error:
        errors.print(f"mars: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        how_on = "; the same command continues" if resumable else ""
        errors.print(f"mars: interrupted{how_on}.", style="red")
        others = set(threading.enumerate()) - {threading.main_thread()}
        if not all(thread.daemon for thread in others):
            os._exit(130)  # the interpreter would wait for them, and they are a comparison's cells
        raise typer.Exit(130) from None
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        errors.print(
            f"mars: Prefect's API does not answer any more ({error}). What is finished is in the run's "
            "folder; once the API is back, the same command continues.",
            style="red", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        raise typer.Exit(1) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_of_the_network(error: Exception) -> bool:
    """Whether Prefect's client, the only one that does not tell its failures itself, lost its server."""
    httpx = sys.modules.get("httpx")
    return httpx is not None and isinstance(error, httpx.TransportError)


@contextmanager
def _prefect(folder: Path, tracking: "TrackingConfig | None" = None) -> Iterator[None]:
    """Let a flow run, if MLflow will take its numbers; say where to watch it, and where its results are."""
    from tasks.processes.prefect_server import prefect_api
    from tasks.tracking.mlflow_store import check_tracking

    if tracking:
        check_tracking(tracking)
    with prefect_api() as api:
        _quiet_known_errors()
        login = _login(api) if console.is_terminal else ""  # a log keeps no password
        _say(f"Prefect: {api.page}{login}   folder: {folder}")
        yield


def _login(api: "PrefectApi") -> str:
    """What Prefect's page asks for, to follow its address; nothing of a server that is configured."""
    return f"   password: {api.credentials}" if api.credentials else ""


def _quiet_known_errors() -> None:
    """Keep the stack traces of foreseen errors out of Prefect's log; their sentence stays."""

    def without_trace(record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], MarsError):
            record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
        return True

    import prefect  # noqa: F401 - sets up the loggers

    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.flow_engine", "prefect.task_engine"):
        logging.getLogger(name).addFilter(without_trace)


def _say(line: str) -> None:
    """Print a line as it is: a path that was wrapped cannot be copied."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def _print_rounds(report: "RunReport") -> None:
    """Print a column a round: a terminal is seldom as wide as the report's table."""
    from mars_core.report.run_report import rounds_table

    (_, *names), rows = rounds_table(report)
    table = Table("", *(f"round {row[0]}" for row in rows), title=report.name)
    for position, name in enumerate(names, start=1):
        table.add_row(name, *(row[position] for row in rows))
    console.print(table)


def _print_arms(report: "ComparisonReport") -> None:
    from mars_core.report.comparison_report import means_table

    for name, why in report.failed.items():
        Console(stderr=True).print(f"{name} failed: {why}", style="red", markup=False, highlight=False)
    (_, *names), rows = means_table(report)
    table = Table("", *(row[0] for row in rows), title=report.config.name)
    for position, name in enumerate(names, start=1):
        table.add_row(name, *(row[position] for row in rows))
    console.print(table)


def _print_pairs(title: str, facts: dict[str, Any]) -> None:
    table = Table(title=Text(title), show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name, Text(str(value)))  # no markup: a prompt may well hold [/INST]
    console.print(table)


if __name__ == "__main__":
    sys.exit(app())
