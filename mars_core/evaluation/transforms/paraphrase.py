"""17, of the responses: a paraphrase of both."""

from collections.abc import Sequence

from mars_core.evaluation.transforms.transform import Models, Pair, Transform, with_responses
from mars_core.generation import Request, Role

SAMPLES = 4
"""Paraphrases that are asked for, of which the first that passes the guards is taken."""
ROLES: tuple[Role, Role] = ("paraphrase_chosen", "paraphrase_rejected")


class Paraphrase(Transform):
    """Both responses in other words say what they said, as far as the guards can tell."""

    changes = "responses"
    needs = "generator"

    def apply(self, pairs: Sequence[Pair], models: Models) -> list[Pair | None]:
        """See `Transform.apply`."""
        requests = [Request(role, *pair, n=SAMPLES) for role in ROLES for pair in pairs]
        written = models.paraphrases(requests, models.answers(requests))
        return list(map(with_responses, pairs, written[: len(pairs)], written[len(pairs) :]))
