"""16. Another format of the final answer of both responses."""

import re

from mars_core.evaluation.transforms.transform import TextTransform

_BOXED = re.compile(r"\$?\\boxed\{([^{}]*\d[^{}]*)\}\$?")
_SAID = re.compile(r"(\banswer(?: is|:) )([-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?)", re.IGNORECASE)


class AnswerFormat(TextTransform):
    r"""A number that answers a question is the same number in a box: 34 and \boxed{34}.

    It applies where the text puts its last answer into a box, or after "answer is" or "Answer:".
    """

    changes = "responses"

    def change(self, text: str) -> str | None:
        """See `TextTransform.change`."""
        boxed, said = list(_BOXED.finditer(text)), list(_SAID.finditer(text))
        if boxed:
            last = boxed[-1]
            return f"{text[: last.start()]}**{last[1]}**{text[last.end() :]}"
        if said:
            last = said[-1]
            return f"{text[: last.start(2)]}$\\boxed{{{last[2]}}}${text[last.end() :]}"
        return None
