"""Texts by rule, without a model: for the quickstart, for tests, and for studies without a network.

They are weaker than a model's, but cost nothing and are the same on every machine. A report that
used them says so.
"""

import time
from collections.abc import Iterator, Sequence

from mars_core.files import digest
from mars_core.generation.backends.backend import Backend
from mars_core.generation.interface import Answer, Request
from mars_core.generation.rule_based.paraphrasing import paraphrases
from mars_core.generation.rule_based.rule_rewriting import rewritten_chosen, rewritten_rejected

VERSION = 3
"""Raised with every change of the rules that changes a text, so that no older one is taken from the store."""


class RulesBackend(Backend):
    """Paraphrases by lexicon and sentence rules, rewrites by keeping, dropping and framing sentences."""

    free = True

    def key(self, request: Request) -> str:
        """See `Backend.key`."""
        asked = (request.prompt, request.chosen, request.rejected)
        material = request.text if request.role.startswith("paraphrase") else asked
        return digest("rules, raw", VERSION, request.role, material, request.n, request.draw)

    def answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """See `Backend.answers`; in order."""
        for index, request in enumerate(requests):
            started = time.monotonic()
            texts = tuple(_texts(request))
            yield (
                index,
                Answer(
                    key=self.key(request),
                    texts=texts,
                    finish_reasons=("stop",) * len(texts),
                    prompt_tokens=0,
                    completion_tokens=0,
                    seconds=time.monotonic() - started,
                    messages=({"role": "user", "content": request.text},),
                ),
            )


def _texts(request: Request) -> list[str]:
    seed = digest(VERSION, request.role, request.text)
    if request.role == "rewrite_rejected":
        return rewritten_rejected(request, seed)
    if request.role == "rewrite_chosen":
        return rewritten_chosen(request, seed)
    return paraphrases(
        request.source, request.n, seed, request.draw, of_prompt=request.role == "paraphrase_prompt"
    )
