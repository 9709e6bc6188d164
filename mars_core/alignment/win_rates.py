"""Win rates from recorded judgements: plain, with their intervals and bounds, and length-controlled.

A judgement that could not be read is missing and never guessed: the rate is over those that were read, and
its bounds are the rates if all missing ones had gone one way. Judgements of one prompt are one draw. Longer
responses please judges: the length-controlled rate (AlpacaEval 2, arXiv 2404.04475) is what a logistic
regression expects of responses as long as the baseline's. The package `alpaca_eval` computes it, and its form
is named beside the number, for forms differ by points.
"""

import importlib
import warnings
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pandas as pd

from mars_core.alignment.judgements import ALPACA_EVAL, Judgements
from mars_core.errors import MarsError
from mars_core.evaluation.statistics import Interval, accuracy, stratified_bootstrap

MINIMAL, OFFICIAL = "length_controlled_minimal", "length_controlled_v1"
FOLDS = 5
"""Of the regression's cross-validation: fewer pairs than that cannot be divided."""
OFFICIAL_PAIRS, OFFICIAL_BASELINE = 805, "gpt4_1106_preview"
"""AlpacaEval's instructions and baseline, which the difficulties of its official form were fitted for."""


class WinRateError(MarsError):
    """A rate cannot be computed; the message says why."""


@dataclass(frozen=True)
class Position:
    """What the order in which a judge sees two responses does, over pairs that it saw in both."""

    pairs: int
    first_wins: Interval
    """How often the response that is shown first wins; .5 for a judge who does not look at the order."""
    consistent: Interval
    """Share of pairs whose winner, or tie, is the same in both orders."""


@dataclass(frozen=True)
class WinRates:
    """How often a model's responses are preferred to a baseline's; rates are shares, from 0 to 1."""

    judgements: int
    missing: int
    """Judgements whose answer could not be read."""
    ties: int
    plain: Interval
    """Mean preference over the judgements that were read, with its 95% interval over prompts."""
    if_missing_lost: float
    if_missing_won: float
    longer: float
    """Share of pairs in which the model's response is the longer one, in characters."""
    length_controlled: dict[str, float]
    """Name of the form → rate; without a form that could not be computed."""
    notes: tuple[str, ...]
    """Why a form is not there, and what its figure is not."""
    position: Position | None
    """None where no pair was judged in both orders."""


def win_rates(judgements: Judgements) -> WinRates:
    """All rates of some judgements.

    Raises:
        WinRateError: no answer could be read, or `alpaca_eval` is not installed.
    """
    table = judgements.table
    read = table[table["preference"].notna()]
    if read.empty:
        raise WinRateError(f"none of {len(table):,} judgements could be read: there is no rate")
    won, missing = float(read["preference"].sum()), len(table) - len(read)
    pairs = judgements.pairs.dropna(subset="preference")
    controlled, notes = _length_controlled(judgements, pairs)
    return WinRates(
        judgements=len(table),
        missing=missing,
        ties=int((read["preference"] == 0.5).sum()),
        plain=_mean(read["preference"], read["prompt"]),
        if_missing_lost=won / len(table),
        if_missing_won=(won + missing) / len(table),
        longer=float((_longer_by(pairs) > 0).mean()),
        length_controlled=controlled,
        notes=notes,
        position=_position(read),
    )


def agreement(judgements: Judgements, recorded: Judgements) -> tuple[Interval, int]:
    """Share of pairs in which two judges prefer the same response, and of how many; ties are left out.

    Raises:
        WinRateError: they judged no pair in common, or one of them preferred nothing there.
    """
    keys = ["prompt", "response", "baseline"]
    common = judgements.pairs.merge(recorded.pairs, on=keys, suffixes=("", "_recorded"))
    one, other = common["preference"] - 0.5, common["preference_recorded"] - 0.5
    preferred = one * other != 0  # false where one of them is a tie
    preferred &= one.notna() & other.notna()
    if not preferred.any():
        raise WinRateError(
            f"the judgements have {len(common):,} prompts with the same two responses in common, and on none "
            "of them do both judges prefer one: there is no agreement to count"
        )
    products = (one * other)[preferred]
    return accuracy(products, common.loc[preferred, "prompt"]), len(products)


def _length_controlled(
    judgements: Judgements, pairs: pd.DataFrame
) -> tuple[dict[str, float], tuple[str, ...]]:
    if len(pairs) < FOLDS:
        return {}, (f"{len(pairs)} pairs are too few for a length-controlled rate, which needs {FOLDS}.",)
    if _longer_by(pairs).nunique() == 1:
        return {}, ("All pairs differ alike in length: there is nothing to control for.",)
    rates, notes = {MINIMAL: _minimal(pairs)}, [f"{MINIMAL} is no figure of AlpacaEval's leaderboard."]
    if _is_official(judgements):
        official = _official(judgements)
        if isinstance(official, str):
            notes.append(f"{OFFICIAL}, the leaderboard's form, needs a file of AlpacaEval's: {official}")
        else:
            rates[OFFICIAL] = official
    return rates, tuple(notes)


def _longer_by(pairs: pd.DataFrame) -> "pd.Series[int]":
    """By how many characters a model's response is longer than the baseline's."""
    return pairs["response"].str.len() - pairs["baseline"].str.len()


def _minimal(pairs: pd.DataFrame) -> float:
    """Logistic regression on tanh(Δ / σ), Δ the baseline's characters less the model's, and a constant; its
    mean prediction at Δ = 0. No file is needed, and nothing but the pairs is fitted to."""
    glm = _package()
    shorter_by = -_longer_by(pairs)
    known = pd.DataFrame(
        {
            "preference": pairs["preference"],
            "std_delta_len": shorter_by / shorter_by.std(),
            "not_gamed_baseline": True,
        }
    )
    as_long = known[["not_gamed_baseline"]].assign(std_delta_len=0)
    form = glm.GLM_INFO[MINIMAL]
    train, test = glm.make_dmatrix_for_model(known, as_long, formula=form["formula"])
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the package's arguments are old
        fitted = glm.fit_LogisticRegressionCV(train, "preference", is_ytrue_proba=True, **form["kwargs"])
    return float(fitted.predict_proba(test)[:, 1].mean())


def _is_official(judgements: Judgements) -> bool:
    return (
        judgements.form == ALPACA_EVAL
        and judgements.baseline == OFFICIAL_BASELINE
        and len(judgements.table) == OFFICIAL_PAIRS
    )


def _official(judgements: Judgements) -> float | str:
    """The leaderboard's form by the package, or why its file cannot be fetched."""
    glm = _package()
    table = judgements.table
    annotations = pd.DataFrame(
        {
            "output_1": table["baseline"],
            "output_2": table["response"],
            "preference": table["preference"] + 1,
            "generator_1": judgements.baseline,
            "generator_2": judgements.model,
        }
    )
    try:
        metrics = glm.get_length_controlled_winrate(
            annotations, glm_name=OFFICIAL, save_weights_dir=None, is_warn_extreme_changes=False
        )
    except OSError as error:  # the hub is away, or is not to be asked
        return str(error).partition("\n")[0]
    return float(metrics["length_controlled_winrate"]) / 100


def _package() -> ModuleType:
    """The module of `alpaca_eval` with its regressions; importing it takes seconds."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of packages that it imports
            return importlib.import_module("alpaca_eval.metrics.glm_winrate")
    except ImportError as error:
        raise WinRateError(
            f"length-controlled win rates are computed by the package alpaca_eval ({error}); install this "
            'project with its extra: pip install "mars[align]"'
        ) from error


def _position(read: pd.DataFrame) -> Position | None:
    """What the order does, where a pair was judged in both."""
    known = read.dropna(subset="shown_first")
    keys = ["prompt", "response", "baseline"]
    by_order = known.pivot_table(index=keys, columns="shown_first", values="preference")
    if not {"response", "baseline"} <= set(by_order.columns):
        return None
    both = by_order.dropna()
    if both.empty:
        return None
    prompts = both.index.get_level_values("prompt")
    first_wins = (both["response"] + 1 - both["baseline"]) / 2
    same = np.sign(both["response"] - 0.5) == np.sign(both["baseline"] - 0.5)
    return Position(
        len(both), _mean(first_wins, prompts), accuracy(np.where(same, 1.0, -1.0), np.asarray(prompts))
    )


def _mean(values: "pd.Series[float]", prompts: "pd.Series[str] | pd.Index[str]") -> Interval:
    """A mean with its 95% interval over prompts; without one where there is no spread."""
    strata = np.full(len(values), "all", dtype=object)
    return stratified_bootstrap(values, strata, {"all": 1.0}, clusters=np.asarray(prompts))
