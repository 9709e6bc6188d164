"""A policy: a chat model that is aligned. Its tokens of prompts and responses, and checks before any work."""

import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from mars_core.alignment.trainer_setup import TrainingError
from mars_core.data.dialogue import turns
from mars_core.errors import ModelError
from mars_core.generation.instructions import chat_tokens
from mars_core.model.batching import padded, token_batches
from mars_core.model.checkpoints import locate
from mars_core.model.loading import load_tokenizer
from mars_core.model.next_tokens import NextTokens

BATCH_TOKENS = 1024
"""Padded tokens of a forward pass when divergences are computed: the whole vocabulary counts at each."""


def policy_tokenizer(reference: str) -> Any:
    """The tokenizer of a chat model, with a pad token, padding on the left.

    Raises:
        ModelError: it cannot be read, or has no chat template.
    """
    tokenizer = load_tokenizer(reference)
    if not tokenizer.chat_template:
        raise ModelError(
            f"the policy {reference} has no chat template, like most base models: use an instruction-tuned "
            "one"
        )
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer


def check_policy(reference: str, prompts: Iterable[str], max_tokens: int) -> None:
    """Check that a policy can be asked some prompts, without loading its weights.

    Args:
        reference: of the policy.
        prompts: what it is asked.
        max_tokens: most tokens of a response.

    Raises:
        ModelError: it has no chat template.
        TrainingError: prompts leave no room for a response; tells how many, and shows one.
    """
    tokenizer, (path, revision) = policy_tokenizer(reference), locate(reference)
    config = transformers.AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    longest = min(
        int(tokenizer.model_max_length),
        getattr(config, "max_position_embeddings", tokenizer.model_max_length),
    )
    too_long = [prompt for prompt in prompts if len(prompt_tokens(tokenizer, prompt)) + max_tokens > longest]
    if too_long:
        raise TrainingError(
            f"{len(too_long):,} prompts and a response of {max_tokens:,} tokens are longer than the "
            f"{longest:,} tokens that {reference} reads, such as {too_long[0][:80]!r}: leave them out, or "
            "lower generation.respond.max_tokens"
        )


def check_trainable(method: str) -> None:
    """Check that the package that trains is installed, without importing it.

    Raises:
        TrainingError: it is not.
    """
    if importlib.util.find_spec("trl") is None:
        raise TrainingError(
            f"training.method={method} is run by the package trl, which is not installed: install this "
            'project with its extra: pip install "mars[align]"'
        )


def prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    """The token ids of a stored prompt, up to where the response begins."""
    return chat_tokens(tokenizer, [turn._asdict() for turn in turns(prompt)])


def response_tokens(tokenizer: Any, response: str, *, is_cut_off: bool) -> list[int]:
    """The token ids of a response; the end token is one of them unless the response was cut off."""
    ids = list(tokenizer(response, add_special_tokens=False).input_ids)
    return ids if is_cut_off else [*ids, int(tokenizer.eos_token_id)]


def divergences(
    policy: str,
    reference: str,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    device: str,
) -> NDArray[np.float64]:
    """Σ_t KL(π(· | x, y_<t) ‖ π_ref(· | x, y_<t)) over the tokens of each response y, [n], in nats.

    Its mean over responses that π was sampled for is an unbiased estimate of KL(π ‖ π_ref), which is never
    negative and varies less than ln π(y)/π_ref(y) does (arXiv 2504.10637).

    Args:
        policy: reference of π.
        reference: that of π_ref, whose tokenizer is also π's.
        prompts: [n] token ids.
        responses: [n] token ids.
        device: where it is computed, as torch names it.

    Raises:
        ModelError: a policy cannot be loaded.
    """
    tokenizer = policy_tokenizer(reference)
    networks = [NextTokens(name, tokenizer, torch.device(device)).network for name in (policy, reference)]
    texts = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    found = np.empty(len(texts))
    for batch in token_batches(list(map(len, texts)), BATCH_TOKENS):
        inputs = padded([texts[place] for place in batch], tokenizer.eos_token_id)
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        with torch.inference_mode():
            log_p, log_q = (network(**inputs).logits.float().log_softmax(-1) for network in networks)
            terms = (log_p.exp() * (log_p - log_q)).sum(-1).double().cpu().numpy()
        for place, of_text in zip(batch, terms, strict=True):
            found[place] = of_text[len(prompts[place]) - 1 : len(texts[place]) - 1].sum()
    return found
