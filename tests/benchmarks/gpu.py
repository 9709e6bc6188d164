"""The scoring and fitting benchmarks on a GPU, with random weights: DeBERTa-v3-base and a Llama of 1B.

    python tests/benchmarks/gpu.py [--tiny]

Needs no download. torch and transformers do the work; `mars_core.model.reward_model` and
`mars_core.fit.train` also import numpy, pandas, pyarrow, datasets, pydantic, safetensors and accelerate (peft
only for LoRA). Texts are random words, as long as HH-RLHF's. TRL is not needed: its way of batching is the
plain loop below. `--tiny` runs everything at a small size, on any machine, to see that it works.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import fitting
import numpy as np
import scoring_speed
import torch
import transformers
from datasets import Dataset
from material import sentences, word_tokenizer
from measuring import apart

from mars_core.model.batching import padded
from mars_core.objectives.objective import preference_loss

MAX_LENGTH = 512
WORDS = 1_000
ARCHITECTURES = {
    "deberta-v3-base": transformers.DebertaV2Config(
        vocab_size=128_100, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3_072, max_position_embeddings=MAX_LENGTH, relative_attention=True,
        position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, type_vocab_size=0, layer_norm_eps=1e-7, pooler_dropout=0.0,
    ),
    "llama-1b": transformers.LlamaConfig(
        vocab_size=128_256, hidden_size=2_048, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, intermediate_size=8_192, max_position_embeddings=MAX_LENGTH, head_dim=64,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0}, tie_word_embeddings=True,
    ),
}  # fmt: skip
TINY = {
    "vocab_size": WORDS + 4, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16, "pooler_hidden_size": 64,
}  # fmt: skip


def save_random(folder: Path, settings: transformers.PreTrainedConfig) -> None:
    """A reward model of this architecture, drawn by seed 0, with a tokenizer of words."""
    settings.num_labels, settings.pad_token_id = 1, 0
    torch.manual_seed(0)
    transformers.AutoModelForSequenceClassification.from_config(settings).save_pretrained(folder)
    encoder = settings.model_type != "llama"
    word_tokenizer(WORDS, MAX_LENGTH, encoder=encoder).save_pretrained(folder)


def random_pairs(rows: int) -> Dataset:
    """Pairs whose prompts and responses have about the lengths of HH-RLHF's, in tokens."""
    random = np.random.default_rng(0)
    lengths = {"prompt": (90, 0.9), "chosen": (55, 0.8), "rejected": (50, 0.8)}
    texts = {
        column: sentences(random.lognormal(np.log(median), spread, rows).astype(int) + 1, WORDS, seed)
        for seed, (column, (median, spread)) in enumerate(lengths.items())
    }
    return Dataset.from_dict({"pair_id": [f"random-{row}" for row in range(rows)], **texts})


def plain_loop(start: Path, file: Path, pairs: int, size: int, bfloat16: bool) -> fitting.Figures:
    """TRL's way: pairs as they come, chosen and rejected together, padded to the longest, accumulated."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, rows = fitting.token_ids(start, file, pairs)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(start, dtype=torch.float32)
    network.to(device).train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.AdamW(network.parameters(), fitting.LEARNING_RATE, weight_decay=0.0, fused=True)
    steps = pairs // fitting.BATCH
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    ends, losses = [], []
    for batch in rows.iter(fitting.BATCH):
        total = torch.zeros((), device=device)
        for at in range(0, fitting.BATCH, size):
            ids = batch["chosen_ids"][at : at + size] + batch["rejected_ids"][at : at + size]
            inputs = {name: tensor.to(device) for name, tensor in padded(ids, tokenizer.pad_token_id).items()}
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                chosen, rejected = network(**inputs).logits.squeeze(-1).chunk(2)
            loss = preference_loss(chosen.float() - rejected.float()).mean() * size / fitting.BATCH
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(total.item())
        ends.append(time.perf_counter())
    return {**fitting.timed(ends), "losses": losses}


def main() -> None:
    """One JSON line for each benchmark and architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small models, few pairs")
    tiny = parser.parse_args().tiny
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    for architecture, settings in ARCHITECTURES.items():
        if tiny:
            settings.update({key: value for key, value in TINY.items() if hasattr(settings, key)})
        with tempfile.TemporaryDirectory(prefix="mars-bench-") as folder:
            start = Path(folder) / "start"
            save_random(start, settings)
            scored, fitted = (
                random_pairs(32 if tiny else 2_000),
                random_pairs(fitting.TRIAL_PAIRS * (1 if tiny else 8)),
            )
            lines = {
                "scoring/authors-loop": (scoring_speed.authors_loop, start, scored),
                "scoring/trl-batching": (scoring_speed.trl_batching, start, scored),
                "scoring/peak": (scoring_speed.peak, start, scored),
                "fitting/plain-loop": (fitting.against, plain_loop, start, fitted),
            }
            for benchmark, call in lines.items():
                print(f"{benchmark}, {architecture} …", file=sys.stderr, flush=True)
                figures = apart(*call)
                print(
                    json.dumps({"benchmark": f"{benchmark}/{architecture}", "device": name, **figures}),
                    flush=True,
                )


if __name__ == "__main__":
    main()
