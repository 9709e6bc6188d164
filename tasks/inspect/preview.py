"""What a run's generator would make of a few pairs, before a long run on all of them.

The pairs are the hardest: those of the smallest margin where the run has measured margins, else those whose
responses are closest, of a sample. They go through rewriting and augmentation as in a round, but no
reward model judges the order of a rewrite. Every request is shown as it was sent, and every answer with what
each guard says of it. The answers are in the store, so that the run itself does not pay for them again.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mars_core.data.dialogue import last_user_turn
from mars_core.generation import Answer, Generator, Request
from mars_core.generation.generator import Arrived, Topic
from mars_core.method.augmentation import AugmentationError, Parent, augment
from mars_core.method.guards import Guards, GuardsConfig, Verdict, cleaned, overlap, verdicts
from mars_core.method.rewriting import Rewrite, RewritingError, rewrite
from mars_core.method.semantics import Embedder, measure_distances
from mars_core.tables import Table
from tasks.inspect.estimate import paraphrases_a_round
from tasks.processes.open_generator import open_generator
from tasks.run.progress import progress
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import RunFolder, claimed_run
from tasks.run.sources import read_sources

SAMPLE = 200
"""Originals of which the closest are taken where there are no margins yet."""
BUDGET = 3
"""Synthetic pairs that each pair is to give: both of its responses are paraphrased for so many."""


class Listened(Generator):
    """A generator that remembers its answers, with their requests, in the order in which they came."""

    def __init__(self, generator: Generator) -> None:
        """Of the same backend and store."""
        super().__init__(
            generator.backend, generator.store, generator.max_failed_share, offline=generator.offline
        )
        self.heard: list[tuple[Request, Answer]] = []
        self.written: list[tuple[float, int]] = []
        """When answers came that were not in the store, and how many tokens had been written by then."""

    @property
    def rate(self) -> float:
        """Tokens a second after the first answer, before which a server may have started; 0 if unknown."""
        if len(self.written) < 2:
            return 0.0
        (began, before), (ended, after) = self.written[0], self.written[-1]
        return (after - before) / max(ended - began, 1e-9)

    def converse(
        self,
        requests: Iterable[tuple[Topic, Request]],
        reply: Callable[[Sequence[Arrived[Topic]]], Iterable[tuple[Topic, Request]]],
        on_answer: Callable[[], object] | None = None,
    ) -> None:
        """See `Generator.converse`."""

        def listen(arrived: Sequence[Arrived[Topic]]) -> Iterable[tuple[Topic, Request]]:
            if self.counts.sent:
                self.written.append((time.monotonic(), self.counts.completion_tokens))
            self.heard += [(request, answer) for _, request, answer in arrived]
            return reply(arrived)

        super().converse(requests, listen, on_answer)


class NoModel:
    """Stands where a reward model would judge, before there is one: every pair stays in order."""

    def readouts(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float32]:
        """Nothing, [n, 1]."""
        return np.zeros((len(prompts), 1), dtype=np.float32)

    def rewards(self, readouts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Zeros, [n]."""
        return readouts[:, 0]

    def margins(self, chosen: NDArray[np.float32], rejected: NDArray[np.float32]) -> NDArray[np.float32]:
        """Zeros, [n]."""
        return (chosen - rejected)[:, 0]


def preview(config: RunConfig, pairs: int) -> Iterator[str]:
    """The page, a paragraph after the other, in Markdown.

    Args:
        config: of the run; its folder gets no artifact.
        pairs: how many originals are tried.

    Raises:
        PairsError, SelectionError: the data cannot be used.
        GenerationError: no texts could be written.
        AugmentationError: the scheme makes nothing of an original's texts.
        RunFolderError: the run is under way.
    """
    if not config.augmentation.writes_variants:
        raise AugmentationError(
            f"augmentation.scheme={config.augmentation.scheme} makes nothing of an original's texts: there "
            "is nothing to preview"
        )
    embedder = Embedder(config.semantics)
    with (
        read_sources(config) as (sets, _),
        claimed_run(config) as run,
        open_generator(run) as generator,
    ):
        rows, distances, threshold, why = _hardest(run, sets.train, embedder, pairs)
        chosen = sets.train.select(rows)
        yield f"# Preview of {config.name}"
        yield f"{len(chosen)} originals, {why}. Texts by {generator.backend.name}."
        listened = Listened(generator)
        rewrites, rewriting = _rewritten(config, chosen, distances, threshold, listened, embedder)
        parents = [
            Parent(row["pair_id"], row["prompt"], now.chosen, now.rejected, BUDGET)
            for row, now in zip(chosen.to_list(), rewrites, strict=True)
        ]
        guards = Guards(config.guards, embedder, None, config.generation.told)
        made: list[dict[str, Any]] = []
        trouble = ""
        try:
            with _progress("paraphrases", 3 * len(parents), listened) as on_answer:
                made = augment(
                    parents, listened, guards, config.augmentation, on_answer=on_answer
                ).pairs.to_list()
        except AugmentationError as error:
            trouble = f"\n\n{error}."
        for parent, row in zip(parents, chosen.to_list(), strict=True):
            yield from _about(parent, row, listened.heard, made, config, embedder)
        dropped = {"rewrites": rewriting.reasons(), "paraphrases": guards.reasons()}
        yield _totals(config, parents, listened, dropped, len(sets.train)) + trouble


def _hardest(
    run: RunFolder, train: Table, embedder: Embedder, pairs: int
) -> tuple[list[int], list[float], float, str]:
    """Rows of the hardest originals, their distances, the threshold of close ones, how they were found."""
    tables = [run.path(run.of_round(t).margins) for t in range(run.config.rounds, 0, -1)]
    measured = next((table for table in tables if table.exists()), None)
    shuffled = np.random.default_rng(run.config.seed).permutation(len(train))[:SAMPLE]
    sample = train.select(shuffled)
    distances = measure_distances(sample, embedder, run.config.semantics.threshold)
    threshold = float(distances["threshold"].iloc[0])
    if measured is None:
        closest = distances["distance"].to_numpy().argsort(kind="stable")[:pairs]
        why = f"those of {len(sample)} whose responses are closest, for the run has measured no margins yet"
        return shuffled[closest].tolist(), distances["distance"].to_numpy()[closest].tolist(), threshold, why
    margins = Table(measured).read("pair_id", "margin").to_pydict()
    order = dict(zip(margins["pair_id"], margins["margin"], strict=True))
    ids = train.read("pair_id")["pair_id"].to_pylist()
    rows = sorted(
        (row for row in range(len(ids)) if ids[row] in order), key=lambda row: (order[ids[row]], ids[row])
    )[:pairs]
    hardest = train.select(rows)
    of_hardest = embedder.distances(hardest["chosen"][:], hardest["rejected"][:]).tolist()
    return rows, of_hardest, threshold, f"those of the smallest margin in {measured.parent.name}"


def _rewritten(
    config: RunConfig,
    chosen: Dataset,
    distances: Sequence[float],
    threshold: float,
    listened: Listened,
    embedder: Embedder,
) -> tuple[list[Rewrite], Guards]:
    """The pairs after rewriting, and the guards that judged; no reward model judges their order."""
    nothing = np.zeros(1, dtype=np.float32)
    all_pairs = [
        Rewrite(row["pair_id"], row["prompt"], row["chosen"], row["rejected"], far, far, nothing, nothing)
        for row, far in zip(chosen.to_list(), distances, strict=True)
    ]
    close = [pair for pair in all_pairs if pair.distance_before < threshold]
    guards = Guards(config.guards, embedder, NoModel(), config.generation.told)
    if close and config.rewriting.enabled and config.augmentation.writes_variants:
        # Where no rewrite is usable, each sample is shown with the reason.
        with suppress(RewritingError), _progress("rewrites", len(close), listened) as on_answer:
            rewrite(close, listened, guards, config.rewriting, on_answer)
    return all_pairs, guards


@contextmanager
def _progress(what: str, total: int, listened: Listened) -> Iterator[Callable[[], None]]:
    """The progress of requests; call the yielded function once for each answer."""
    with progress(what, total, "requests", lambda: listened.counts.completion_tokens) as advance:
        yield lambda: advance(1)


def _about(
    parent: Parent,
    row: dict[str, Any],
    heard: Sequence[tuple[Request, Answer]],
    made: Sequence[dict[str, Any]],
    config: RunConfig,
    embedder: Embedder,
) -> Iterator[str]:
    """An original, what was asked and answered about it, and the pairs that come out."""
    yield f"## {parent.pair_id}\n\n" + "\n\n".join(
        f"**{part}**\n\n{_quoted(row[part])}" for part in ("prompt", "chosen", "rejected")
    )
    for request, answer in heard:
        texts = {"rewrite": (row["chosen"], row["rejected"]), "paraphrase": (parent.chosen, parent.rejected)}
        about = texts.get(request.role.partition("_")[0])
        if request.prompt == row["prompt"] and (request.chosen, request.rejected) == about:
            yield from _exchange(request, answer, row, config, embedder)
    own = [pair for pair in made if pair["parent_id"] == parent.pair_id]
    yield f"### Synthetic pairs: {len(own)}"
    for pair in own:
        yield "\n\n".join(
            f"**{part}{' (new)' if pair[f'{part}_variant'] else ''}**\n\n{_quoted(pair[part])}"
            for part in ("prompt", "chosen", "rejected")
        )


def _exchange(
    request: Request, answer: Answer, row: dict[str, Any], config: RunConfig, embedder: Embedder
) -> Iterator[str]:
    """A request as it was sent, and each sample with the verdict of each guard."""
    title = request.role.replace("_", " of the ") + (f", draw {request.draw + 1}" if request.draw else "")
    yield f"### {title.capitalize()}"
    if config.generation.told:
        for message in config.generation.told.messages(request):
            yield f"{message['role']}:\n\n{_quoted(message['content'])}"
        yield (
            f"{request.n} samples of at most {config.generation.max_tokens(request)} tokens: "
            f"{answer.completion_tokens} tokens in {answer.seconds:.1f} s."
        )
    if answer.error:
        yield f"It failed: {answer.error}"
    for number, (raw, finish) in enumerate(zip(answer.texts, answer.finish_reasons, strict=True), 1):
        text = cleaned(raw, request, finish)
        told = config.generation.told.sentences(request.role) if config.generation.told else ()
        found = list(verdicts(text, finish, request, config.guards, told))
        if all(verdict.passed for verdict in found):
            found += _by_meaning(text, request, row, config.guards, embedder)
        fault = next((verdict.reason for verdict in found if not verdict.passed), None)
        said = "; ".join(_said(verdict) for verdict in found)
        yield (
            f"**Sample {number}: {'usable' if fault is None else f'dropped, {fault}'}** "
            f"(word overlap {overlap(text, request.source):.2f})\n\n{_quoted(text)}\n\n{said}"
        )


def _by_meaning(
    text: str, request: Request, row: dict[str, Any], config: GuardsConfig, embedder: Embedder
) -> list[Verdict]:
    """What the guards that need embeddings say of a text."""
    if request.role.startswith("paraphrase"):
        [far] = embedder.distances([text], [request.source])
        return [Verdict("meaning lost", 1 - far >= config.min_similarity, 1 - far, config.min_similarity)]
    prompt = last_user_turn(row["prompt"])
    other = row["rejected"] if request.role == "rewrite_chosen" else row["chosen"]
    texts = [text, row["chosen"], row["rejected"], text, request.source]
    *far, now, before = embedder.distances(texts, [prompt] * 3 + [other] * 2)
    limit = 1 - min(far[1:]) - config.relevance_tolerance
    return [
        Verdict("not farther", now > before, now, before),
        Verdict("beside the prompt", 1 - far[0] >= limit, 1 - far[0], limit),
    ]


def _said(verdict: Verdict) -> str:
    """One guard's verdict with its number."""
    mark = "✓" if verdict.passed else "✗"
    if math.isnan(verdict.number):
        return f"{mark} {verdict.reason}"
    return f"{mark} {verdict.reason} ({verdict.number:.2f}, limit {verdict.limit:.2f})"


def _totals(
    config: RunConfig,
    parents: Sequence[Parent],
    listened: Listened,
    dropped: dict[str, str],
    originals: int,
) -> str:
    """What was kept and paid, and what the run would cost at these rates."""
    samples: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for request, answer in listened.heard:
        kind = request.role.partition("_")[0]
        samples[kind] += len(answer.texts)
        tokens[kind] += answer.completion_tokens
    kept = sum(parent.kept.total() for parent in parents)
    sent = listened.counts.completion_tokens
    stored = "" if sent == tokens.total() else "; the others were in the store"
    lines = [
        "## In all",
        f"{samples['rewrite']} samples of rewrites, {tokens['rewrite']:,} tokens; {samples['paraphrase']} of "
        f"paraphrases, {tokens['paraphrase']:,} tokens, of which {kept} could be used. {sent:,} tokens were "
        f"written now{stored}.",
        *(f"Dropped {kind}: {reasons}." for kind, reasons in dropped.items() if reasons),
    ]
    if kept and tokens["paraphrase"]:
        wanted = config.rounds * paraphrases_a_round(config, originals)
        needed = wanted * tokens["paraphrase"] / kept
        rewritten = config.rounds * min(originals, config.selection.budget)
        rewrites = rewritten * tokens["rewrite"] / len(parents)
        estimate = (
            f"The run wants at most {wanted:,} paraphrases, about {needed:,.0f} tokens, and {rewrites:,.0f} "
            "for rewrites if as many pairs are close as here"
        )
        if rate := listened.rate:
            minutes = (needed + rewrites) / rate / 60
            took = f"{minutes / 60:,.1f} hours" if minutes > 90 else f"{math.ceil(minutes)} minutes"
            estimate += (
                f": {took} at {rate:.0f} tokens/s, as here. More requests at once are several times faster"
            )
        lines.append(f"{estimate}.")
    return "\n\n".join(lines)


def _quoted(text: str) -> str:
    """A text as a block of Markdown that shows it as it is."""
    fence = "`" * max(3, 1 + max((len(run) for run in text.split() if set(run) == {"`"}), default=0))
    return f"{fence}text\n{text}\n{fence}"
