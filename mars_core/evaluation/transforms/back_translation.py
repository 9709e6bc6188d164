"""18. Both responses translated into another language and back."""

from collections.abc import Sequence

from mars_core.evaluation.transforms.transform import Models, Pair, Transform, with_responses
from mars_core.generation import CUT_OFF, Answer, Request, Role

LANGUAGES = ("French", "English")
"""The languages that a text goes through."""
ROLES: tuple[Role, Role] = ("paraphrase_chosen", "paraphrase_rejected")


class BackTranslation(Transform):
    """Both responses from English into French and back, where the guards take them for paraphrases."""

    changes = "responses"
    needs = "chat"

    def apply(self, pairs: Sequence[Pair], models: Models) -> list[Pair | None]:
        """See `Transform.apply`."""
        asked = [Request(role, *pair, n=1) for role in ROLES for pair in pairs]
        texts: list[str | None] = [request.text for request in asked]
        answers = list[Answer]()
        for language in LANGUAGES:
            answers = _translations(texts, language, models)
            texts = [_whole(answer) for answer in answers]
        written = models.paraphrases(asked, answers)
        return list(map(with_responses, pairs, written[: len(pairs)], written[len(pairs) :]))


def _translations(texts: Sequence[str | None], language: str, models: Models) -> list[Answer]:
    """Answers with the translations; without a text those that have none to translate."""
    said = f"Translate the text below into {language}. Write the translation alone."
    requests = {
        text: Request("respond", f"{said}\n\n{text}", "", "", n=1) for text in texts if text is not None
    }
    answers = dict(zip(requests, models.answers(list(requests.values())), strict=True))
    nothing = Answer("", (), (), 0, 0, seconds=0.0)
    return [answers.get(text, nothing) if text is not None else nothing for text in texts]


def _whole(answer: Answer) -> str | None:
    """The text of an answer that has one which ended by itself."""
    ended = answer.texts and answer.finish_reasons[0] not in CUT_OFF
    return answer.texts[0].strip() or None if ended else None
