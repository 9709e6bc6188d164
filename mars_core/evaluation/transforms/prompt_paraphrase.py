"""17, of the prompt: a paraphrase of its last user turn."""

from collections.abc import Sequence

from mars_core.evaluation.transforms.transform import Models, Pair, Transform
from mars_core.generation import Request

SAMPLES = 4
"""Paraphrases that are asked for, of which the first that passes the guards is taken."""


class PromptParaphrase(Transform):
    """A prompt in other words asks what it asked, as far as the guards can tell."""

    changes = "prompt"
    needs = "generator"

    def apply(self, pairs: Sequence[Pair], models: Models) -> list[Pair | None]:
        """See `Transform.apply`."""
        requests = [Request("paraphrase_prompt", *pair, n=SAMPLES) for pair in pairs]
        written = models.paraphrases(requests, models.answers(requests))
        return [
            None if text is None else pair._replace(prompt=text)
            for pair, text in zip(pairs, written, strict=True)
        ]
