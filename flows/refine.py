"""Self-refinement: T rounds of MARS. Reads as the paper does (arXiv 2602.17658; docs/method.md)."""

from prefect import flow
from prefect.runtime import flow_run

from mars_core.evaluation import robustness
from mars_core.report.run_report import RunReport
from tasks.processes.open_generator import open_generator
from tasks.run.run_config import load_run
from tasks.run.run_folder import ArtifactRef, Outputs, RunFolder, open_run
from tasks.run.step import Checkpoint
from tasks.steps.augment_hard_pairs import augment_hard_pairs
from tasks.steps.evaluate_reward_model import evaluate_reward_model
from tasks.steps.fit_reward_model import fit_reward_model
from tasks.steps.initial_model import initial_reward_model
from tasks.steps.measure_contamination import measure_contamination
from tasks.steps.measure_curvature import measure_curvature
from tasks.steps.measure_distances import measure_semantic_distances
from tasks.steps.measure_margins import measure_margins
from tasks.steps.measure_synthetic_pairs import measure_synthetic_pairs
from tasks.steps.prepare import prepare
from tasks.steps.rewrite_close_pairs import rewrite_close_pairs
from tasks.steps.select_hard_pairs import select_hard_pairs
from tasks.steps.summarise_round import summarise_round
from tasks.steps.transform_pairs import transform_pairs
from tasks.steps.write_report import write_report
from tasks.tracking.run_tracking import Track, tracked


def _run_name() -> str:
    return load_run(**flow_run.parameters).name


@flow(name="refine", flow_run_name=_run_name, persist_result=False)
def refine(file: str, overrides: tuple[str, ...] = ()) -> RunReport:
    """Make a reward model better by rounds of margin- and semantic-aware augmentation.

    Args:
        file: path of the experiment's configuration.
        overrides: `dotted.key=value` changes to it.

    Returns:
        The metrics of all rounds; the best one by validation accuracy is the run's result. Started
        again, the flow continues after the last finished step.
    """
    config = load_run(file, overrides)
    with open_run(config) as run:
        sets = prepare(run)
        sets |= transform_pairs(run, sets)
        train = sets["train"]
        with tracked(run) as track:
            distances = measure_semantic_distances(run, None, train)
            model = initial_reward_model(run, train, sets["validation"])
            synthetic = list[ArtifactRef]()
            allocation: ArtifactRef | None = None
            seen = first_seen = _conclude(run, 0, track, sets, model, synthetic, [])

            for t in range(1, config.rounds + 1):
                scored = measure_margins(run, t, model, train)
                allocation = select_hard_pairs(run, t, train, scored, distances, allocation)
                run.link(distances, run.of_round(t).distances)
                with open_generator(run) as generator:  # gone before the fit, which needs the memory
                    rewrites = rewrite_close_pairs(
                        run, t, train, allocation, distances, scored["margins"], model, generator
                    )
                    bought = augment_hard_pairs(run, t, train, allocation, rewrites, model, generator)

                earlier = synthetic if config.fit.synthetic == "all" else []
                synthetic = [*earlier, bought["augmented"]]
                start = model if config.fit.weights == "carry" else Checkpoint(config.model.backbone)
                before, model = model, fit_reward_model(run, t, start, train, synthetic, sets["validation"])
                measured = measure_synthetic_pairs(
                    run, t, bought["augmented"], rewrites, scored["margins"], before, model
                )
                measure_curvature(run, t, scored, measured)

                starts_anew = config.fit.weights == "restart" and config.fit.synthetic == "round"
                seen_before = first_seen if starts_anew else seen
                seen = _conclude(run, t, track, sets, model, synthetic, [seen_before])

            report = write_report(run)
            track(len(report.rounds), ended=True)
            return report


def _conclude(
    run: RunFolder,
    t: int,
    track: Track,
    sets: Outputs,
    model: ArtifactRef,
    synthetic: list[ArtifactRef],
    seen: list[ArtifactRef],
) -> ArtifactRef:
    """Evaluate a round's model, gather the round's metrics and log them; what it has seen in training."""
    everything = run.config.evaluation.benchmark_rounds == "all" or t == run.config.rounds
    wanted = sets.keys() - {"train"} if everything else {"validation", "heldout"}
    results = evaluate_reward_model(run, t, model, {name: sets[name] for name in sets if name in wanted})
    unseen = {name: part for name, part in sets.items() if name not in ("train", robustness.KEY)}
    added = synthetic[-1] if synthetic else sets["train"]
    seen_by_now = measure_contamination(run, t, added, seen, unseen, results)
    summarise_round(run, t, sets["train"], synthetic)
    track(t + 1)
    return seen_by_now
