"""The sections of a report on scores: benchmarks, the comparison with round 0, and what could inflate
them."""

from collections.abc import Mapping
from functools import partial

from mars_core.evaluation import contamination
from mars_core.evaluation.benchmarks.benchmark import Benchmark
from mars_core.evaluation.evaluation_config import Suite
from mars_core.evaluation.statistics import PairedDifference, holm
from mars_core.report.round_tables import Entry, Rounds, by_round, with_ends
from mars_core.report.wording import count, interval, joined, number, p_value, share, signed, table


def against_round_0(
    compared: int, heldout: PairedDifference | None, benchmarks: Mapping[str, PairedDifference]
) -> list[str]:
    """The comparisons of a round with round 0, if there are benchmarks besides the held-out pairs."""
    if not heldout or not benchmarks:
        return []
    family = {"held-out pairs": heldout, **benchmarks}
    corrected = holm({name: difference.p_value for name, difference in family.items()})
    rows = [
        [
            name,
            interval(difference.value, difference.low, difference.high, show=signed),
            p_value(difference.p_value),
            p_value(corrected[name]),
            signed(difference.effect_size),
            f"{difference.only_a:,} / {difference.only_b:,} of {difference.n:,}",
        ]
        for name, difference in family.items()
    ]
    headers = ["", "difference", "p", "p (Holm)", "Cohen's g", "better in one"]
    return [
        f"## Round {compared} against round 0",
        table(headers, rows),
        "Paired on the same examples; those of one prompt are one draw. On held-out pairs p is McNemar's "
        "exact test. Scores of benchmarks are weighted, so theirs is that of random signs of what one model "
        "earns more; so is that of held-out pairs where prompts have several. Holm's correction is for "
        "all rows of this table; the page's first lines give the first row's own p. The last column counts "
        f"examples on which round {compared} / round 0 does better than the other: that it alone gets right.",
    ]


def what_could_fool(rounds: Rounds, compared: int, suite: Suite) -> list[str]:
    """Other explanations of each round's scores, and the rows that round `compared` had seen in training."""
    entries: list[Entry] = []
    added = partial(joined, count, " + ")
    scores = {"heldout": "held-out accuracy", **{key: one.title for key, one in suite.items()}}
    for key, title in scores.items():
        score = suite[key].headline if key in suite else "accuracy"
        seen = f"contamination/{key}"
        equal = suite[key].equal_rewards if key in suite else "which count as wrong"
        entries += [
            (f"**{title}**", interval, *with_ends(f"{key}/{score}")),
            ("without the rows seen in training", interval, *with_ends(f"{seen}/{score}")),
            ("rows seen in training: exact + near", added, f"{seen}/exact", f"{seen}/near"),
            ("the rule “the longer response wins”", share, f"{key}/longer_wins"),
            ("the rule “the shorter response wins”", share, f"{key}/shorter_wins"),
            ("accuracy balanced by length", interval, *with_ends(f"{key}/length_balanced")),
            ("the model prefers the longer response", share, f"{key}/prefers_longer"),
            ("correlation of margin and length difference", number, f"{key}/length_correlation"),
            (f"ties (equal rewards, {equal})", share, f"{key}/ties"),
        ]  # fmt: skip
    for key in ("heldout", *(key for key, one in suite.items() if one.pairwise)):
        title = scores[key].removesuffix(" accuracy")
        entries += [
            (f"{title}: pairs whose responses are the same tokens", count, f"{key}/same_tokens"),
            (f"{title}: Brier score (0 is perfect, .250 has no opinion)", share, f"{key}/brier"),
            (f"{title}: calibration error (biased upwards on few pairs)", share, f"{key}/calibration_error"),
        ]
    parts = by_round("What could fool these figures", rounds, entries)
    for key, title in scores.items():
        constant = [str(t) for t, metrics in enumerate(rounds) if metrics.get(f"{key}/constant")]
        if constant:
            where = title.replace("accuracy", "pairs")
            parts.append(f"**All rewards on {where} are equal in round {', '.join(constant)}.**")
    if any("heldout/longer_wins" in metrics for metrics in rounds):
        parts.append(
            "Length is counted in characters. Accuracy balanced by length is the mean of the accuracies on "
            "pairs whose chosen response is the longer one and on pairs where it is the shorter one: a rule "
            "that only asks which is longer gets .500. The correlation is Spearman's, with chosen minus "
            "rejected length."
        )
    return parts + _contamination(rounds[compared], compared)


def _contamination(metrics: Mapping[str, float], t: int) -> list[str]:
    """The rows that round t had seen in training, by subset."""
    if "contamination/heldout/exact" not in metrics:
        return []
    prefix = "contamination/"
    subsets = {
        key.removeprefix(prefix): rows
        for key, rows in metrics.items()
        if key.startswith(prefix) and "/subset/" in key
    }
    listed = ", ".join(f"{count(rows)} in {name.replace('/subset/', ' ')}" for name, rows in subsets.items())
    return [
        "A row is seen in training where its prompt, or a response that is long enough, is a training text "
        f"(exact) or has at least {contamination.NEAR:.0%} of its {contamination.WORDS}-word runs in one "
        "(near); training texts are all that the round's model was trained on, those of earlier rounds too "
        "where it goes on from their model. "
        f"Rows of benchmarks by subset, in round {t}: {listed or 'none'}."
    ]


def benchmark(key: str, one: Benchmark, rounds: Rounds) -> list[str]:
    """All scores of a benchmark that have a definition, and what a reader of them must know."""
    scores = one.definitions or (one.headline, *one.sections)
    series = {label_of(score): f"{key}/{score}" for score in scores}
    entries: list[Entry] = [(label, interval, *with_ends(name)) for label, name in series.items()]
    entries.append(("texts whose prompt was cut", count, f"{key}/prompts_cut"))
    parts = by_round(one.title, rounds, entries)
    if parts:
        parts += [*_definitions(one), *one.notes]
    return parts + _not_official(key, rounds)


def label_of(score: str) -> str:
    """What a page calls a score of a benchmark."""
    return score.rpartition("/")[2]


def _definitions(one: Benchmark) -> list[str]:
    """How the publisher computes each score, and the rule for equal rewards."""
    scores: dict[str, list[str]] = {}
    for score, definition in one.definitions.items():
        scores.setdefault(definition, []).append(label_of(score))
    said = [f"- {', '.join(labels)}: {definition}." for definition, labels in scores.items()]
    return ["\n".join([*said, f"- Equal rewards: {one.equal_rewards}."])] if said else []


def _not_official(key: str, rounds: Rounds) -> list[str]:
    """A note if a benchmark does not have the official numbers of rows."""
    differing = max((metrics.get(f"{key}/subsets_of_other_size", 0.0) for metrics in rounds), default=0.0)
    if not differing:
        return []
    return [
        f"{count(differing)} of its subsets have other numbers of rows than the official split, so the "
        "scores compare with no published ones."
    ]


def section_keys(key: str, one: Benchmark, rounds: Rounds) -> dict[str, str]:
    """Section of a benchmark → the metric of its score; only those that a round has."""
    known = {name for metrics in rounds for name in metrics}
    return {label_of(section): f"{key}/{section}" for section in one.sections if f"{key}/{section}" in known}


def scores_of(suite: Suite, rounds: Rounds) -> dict[str, str]:
    """Label → metric of each benchmark's headline and sections; only those that a round has.

    With several benchmarks, a section's label begins with the benchmark's title.
    """
    known = {name for metrics in rounds for name in metrics}
    scored = {key: one for key, one in suite.items() if f"{key}/{one.headline}" in known}
    found = {}
    for key, one in scored.items():
        found[one.title] = f"{key}/{one.headline}"
        for section, name in section_keys(key, one, rounds).items():
            found[section if len(scored) == 1 else f"{one.title} {section}"] = name
    return found
