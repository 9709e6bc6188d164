"""15. Unrelated code behind that of both responses."""

from mars_core.evaluation.code_in_texts import code_of
from mars_core.evaluation.transforms.transform import TextTransform

UNRELATED = {
    "python": "def twice_of(number):\n    return 2 * number",
    "javascript": "function twiceOf(number) {\n  return 2 * number;\n}",
    "java": "class TwiceOf {\n    int twiceOf(int number) {\n        return 2 * number;\n    }\n}",
    "cpp": "int twice_of(int number) {\n    return 2 * number;\n}",
    "c": "int twice_of(int number) {\n    return 2 * number;\n}",
    "go": "func twiceOf(number int) int {\n\treturn 2 * number\n}",
    "rust": "fn twice_of(number: i32) -> i32 {\n    2 * number\n}",
}
"""Language → a definition that stands by itself, at the top of a file as among the members of a class."""


class UnrelatedCode(TextTransform):
    """A function that nobody calls changes nothing of what the code before it does."""

    changes = "responses"

    def change(self, text: str) -> str | None:
        """See `TextTransform.change`."""
        found = code_of(text)
        return found and found.with_code(f"{found.code}\n\n{UNRELATED[found.language]}")
