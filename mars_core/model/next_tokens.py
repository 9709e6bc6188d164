"""Next-token probabilities of a causal language model, for objectives that read them."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from mars_core.errors import ModelError
from mars_core.model.batching import padded
from mars_core.model.checkpoints import locate


def check_vocabulary(reference: str, tokenizer: Any) -> None:
    """Check that a language model has the vocabulary of a tokenizer.

    Raises:
        ModelError: there is no such model, or it has another vocabulary.
    """
    path, revision = locate(reference)
    try:
        own = transformers.AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"{reference}: no tokenizer can be read from it: {error}") from error
    if not own.get_vocab().items() <= tokenizer.get_vocab().items():
        raise ModelError(f"{reference}: its vocabulary is not that of the reward model")


class NextTokens:
    """A language model that gives the probability of texts, and is never trained."""

    def __init__(self, reference: str, tokenizer: Any, device: torch.device) -> None:
        """Load the model; it must have the vocabulary of `tokenizer`, which renders the texts.

        Raises:
            ModelError: there is no such model, or it has another vocabulary.
        """
        check_vocabulary(reference, tokenizer)
        path, revision = locate(reference)
        options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
        try:
            network = transformers.AutoModelForCausalLM.from_pretrained(
                path, use_safetensors=True, dtype=torch.float32, **options
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"{reference}: no causal language model can be read from it: {error}") from error
        self.network = network.to(device).eval().requires_grad_(False)
        self.padding = tokenizer.pad_token_id

    @torch.no_grad()
    def __call__(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """ln p of each token given those before it, [texts, T]; 0 for the first and behind a text's end."""
        inputs = {name: tensor.to(self.network.device) for name, tensor in padded(ids, self.padding).items()}
        # This model may lack a pad token that the reward model's vocabulary has; it is never read.
        inside = inputs["input_ids"].clamp(max=self.network.get_input_embeddings().num_embeddings - 1)
        logits = (
            self.network(input_ids=inside, attention_mask=inputs["attention_mask"]).logits[:, :-1].float()
        )
        found = torch.log_softmax(logits, -1).gather(-1, inside[:, 1:, None]).squeeze(-1)
        return torch.nn.functional.pad(found * inputs["attention_mask"][:, 1:], (1, 0))
