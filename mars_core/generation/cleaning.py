"""From what a chat model writes to the text that was asked for: talk about the task is taken off."""

import re

_TASK = r"(?:paraphras\w+|reword\w+|rephras\w+|rewrit\w+|restat\w+)"
_THING = r"(?:text|version|message|prompt|reply|response|answer|question|passage)"
_TAG = r"(?:text|dispreferred|preferred)(?:-\d+)?"

# What a model says before its answer.
_INTRODUCTIONS = (
    # "Sure! Here is a rewritten version of the reply:"
    re.compile(
        rf"^\W*(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[^\n:]{{0,30}}?[!,.]\s*)?"
        rf"(?:here(?:['’]s| is| are)|this is|below is)\b[^\n:]{{0,40}}?\b{_TASK}\b[^\n:]{{0,80}}:[*_\s]*",
        re.IGNORECASE,
    ),
    # "**Paraphrased message:**"
    re.compile(
        rf"^\W*(?:the |my )?{_TASK}(?: (?:dispreferred|preferred))?(?: {_THING})?\W*?:[*_\s]*", re.IGNORECASE
    ),
)
# What else it puts around its answer. Each is left alone where the source text has it too.
_REASONING = re.compile(r"^.*?</think>", re.DOTALL)  # a chat template may have opened it
_AROUND = (
    # "Assistant: "
    re.compile(r"^(?:Assistant|Human|User):\s+"),
    # The tags that our instructions put around their material.
    re.compile(rf"^<{_TAG}>\s*|\s*</{_TAG}>$"),
    # A last paragraph such as "(Note: I kept the meaning of the original.)"
    re.compile(
        rf"\n[ \t]*\n[^\w\n]{{0,6}}(?:note|this {_THING}|i(?:['’]ve| have)? (?:tried|kept|changed)"
        rf"|let me know)\b[^\n]*\b(?:{_TASK}|original|meaning)\b[^\n]*$",
        re.IGNORECASE,
    ),
)
# What gives an answer away that cannot be mended: talk without an end to cut at, tags, several versions.
_TALK = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"</?(?:think|prompt|{_TAG})>",
        rf"^[^\n]{{0,60}}\b(?:here(?:['’]s| is| are)|this is|below (?:is|are)|i(?:['’]ve| have))\b"
        rf"[^\n.]{{0,60}}\b{_TASK}",
        rf"^\W*(?:{_TASK}|version|option|alternative)(?: {_THING})? ?#?\d",
        rf"\b(?:{_TASK}|original|dispreferred|preferred) {_THING}\b",
    )
)
_SPEAKS_OF_TASK = re.compile(r"\b(?:paraphras|reword|rephras|rewrit|rewrote|restat)\w*", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»"}

_CANNOT = r"i(?: (?:can(?:no|['’])t|won['’]t|will not|must decline)|(?: am|['’]m) (?:unable|not able))"
_SORRY = r"(?:i(?:['’]m| am)(?: \w+)? (?:sorry|afraid)|i apologi[sz]e|sorry|my apologies|unfortunately)"
_ACT = (
    r"(?:help|assist|comply|fulfil|do that|provide|create|generate|write|rewrite|reword|paraphrase|engage"
    r"|continue|support|discuss)"
)
_REFUSAL = re.compile(
    rf"^\W*(?:{_SORRY}\b[^.!?\n]{{0,60}}?\b{_CANNOT}|{_CANNOT}(?: to)? {_ACT})", re.IGNORECASE
)


def clean(text: str, source: str = "", *, introduced: bool = True) -> str:
    """Take reasoning, introductions, labels, tags, quotes and closing remarks off a generated text.

    What the `source` text has itself stays. So does an introduction where the source speaks of such a task,
    and with `introduced=False`: a person's "Rewrite this in French:" is no talk around a paraphrase of it.

    >>> clean('Sure! Here is a paraphrase:\\n\\n"Larks sing in flight."')
    'Larks sing in flight.'
    """
    text = text.encode("utf-8", "replace").decode().strip()  # a lone surrogate fits into no file
    source = source.strip()
    introductions = _INTRODUCTIONS if introduced and not _SPEAKS_OF_TASK.search(source) else ()
    for pattern in (_REASONING, *introductions, *_AROUND):
        if not pattern.search(source):
            text = pattern.sub("", text).strip()
    return text if _is_quoted(source) or not _is_quoted(text) else text[1:-1].strip()


def is_task_talk(text: str, source: str = "") -> bool:
    """Whether a cleaned text still speaks about the task, in a way that its source does not.

    >>> is_task_talk("I have rephrased it for you without changing what it says. Larks sing.")
    True
    """
    is_introduced = any(pattern.search(text) for pattern in _INTRODUCTIONS)
    if is_introduced and not _SPEAKS_OF_TASK.search(source):
        return True
    return any(pattern.search(text) and not pattern.search(source) for pattern in _TALK)


def is_refusal(text: str) -> bool:
    """Whether a text begins by declining, as in "I'm sorry, but I can't help with that"."""
    return _REFUSAL.match(text) is not None


def _is_quoted(text: str) -> bool:
    """Whether one pair of quotes wraps the whole text."""
    return len(text) > 2 and _QUOTES.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1])
