"""From what a chat model writes to the text that was asked for: what it put around the text is taken off.

What cannot be taken off gives the text away: see `is_task_talk`, `has_markup` and `is_several_versions`. What
the source text has itself is no fault.
"""

import json
import re
from collections.abc import Iterator

_TASK = r"(?:paraphras\w+|reword\w+|rephras\w+|rewrit\w+|restat\w+)"
_THING = r"(?:text|version|message|prompt|reply|response|answer|question|passage)"
_THING_OF_ITS_OWN = r"(?:answer|response|reply|version|rewrite)"
_VERSION = (
    r"(?:version|attempt|take|try|draft|result|output|suggestion|variant|variation|wording|alternative"
    r"|option)"
)
_TAG = (
    rf"(?:(?:text|dispreferred|preferred)(?:-\d+)?|{_TASK}(?:[_ -]\w+)?|(?:new|final)[_ -]\w+|answer|output"
    r"|result|response|reply|message)"
)
_THOUGHT = r"(?:think|thinking|thought|reasoning|reflection)"
_YES = (
    r"(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|alright|no problem|gladly|with pleasure"
    r"|klar|gerne|natürlich|bien sûr|claro(?: que sí)?|por supuesto|certo|certamente|zeker|конечно"
    r"|当然(?:可以)?|好的)"
)
_START = r"^[^\w{\[]*"

# What a model says before its answer.
_INTRODUCTIONS = (
    # "Sure! Here is a rewritten version of the reply:"
    re.compile(
        rf"{_START}(?:{_YES}\b[^\n:]{{0,30}}?[!,.]\s*)?"
        rf"(?:here(?:['’]s| is| are)|this is|below is)\b[^\n:]{{0,40}}?\b{_TASK}\b[^\n:]{{0,80}}:[*_\s]*",
        re.IGNORECASE,
    ),
    # "**Paraphrased message:**"
    re.compile(
        rf"{_START}(?:the |my )?{_TASK}(?: (?:dispreferred|preferred))?(?: {_THING})?\W*?:[*_\s]*",
        re.IGNORECASE,
    ),
    # "Of course. Here you go:", "How about this:"
    re.compile(
        rf"{_START}(?:{_YES}[!,.:]?\s+)?(?:here (?:you (?:go|are)|it (?:is|goes)|goes)|how (?:about|is) this"
        r"(?: (?:one|instead))?)\s*[:!.…-]+[*_\s]*",
        re.IGNORECASE,
    ),
    # "Sure, here's my attempt at it:", "Here is how I would put it:"
    re.compile(
        rf"{_START}(?:{_YES}[!,.:]?\s+)?(?:here(?:['’]s| is| are) (?:(?:[\w'’-]+ ){{0,4}}?{_VERSION}"
        r"|how (?:i|you|one))\b|(?:i|you|one) (?:would|could|might|can) (?:say|put|phrase|write))"
        r"[^\n:]{0,60}:[*_\s]*",
        re.IGNORECASE,
    ),
    # "Hier ist eine Umformulierung:", "Voici le texte reformulé :", "以下是改写后的文本："
    re.compile(
        rf"{_START}(?:{_YES}[!,.:！，。]?\s*)?(?:hier (?:ist|sind|is)|voici|aquí (?:tienes?|está|te dejo|va)"
        r"|aqui (?:está|vai)|ecco|här är|her er|oto|вот|以下是|这是|下面是|以下は|こちらが|다음은)"
        r"[^\n:：]{0,80}[:：][*_\s]*",
        re.IGNORECASE,
    ),
)
_REASONING = re.compile(  # a chat template may have opened it, and a stop have cut into its end
    rf"^.*?(?:<?/{_THOUGHT}>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>)", re.DOTALL
)
# Tokens by which chat templates mark turns, and tokenizers ends and gaps.
_CONTROL = (
    r"(?:<\|[^|<>\n]{1,60}\|>|<｜[^｜<>\n]{1,60}｜>|</?s>|</?(?:bos|eos|pad|unk|sep|cls|mask)>|\[/?INST\]"
    r"|<</?SYS>>|<(?:start|end)_of_\w+>|<\|?turn\|?>|\[(?:BOS|EOS|PAD|UNK|CLS|SEP|MASK)\]"
    r"|\[/?(?:SYSTEM_PROMPT|TOOL_CALLS)\]|<extra_id_\d+>|<unused\d+>|<0x[0-9A-F]{2}>)"
)
_TOKENS = (
    # "<|im_start|>assistant"
    re.compile(rf"^(?:\s*{_CONTROL}\s*(?:(?:assistant|model|bot)\s*(?=[\n:<]):?\s*)?)+", re.IGNORECASE),
    re.compile(rf"{_CONTROL}$", re.IGNORECASE),
    # "Assistant: ", "### Response:"
    re.compile(r"^(?:(?:Assistant|Human|User|AI):|#{1,4} ?(?:Assistant|Response|Answer|Output|Reply):?)\s+"),
)
# What else it puts around its answer. Each is left alone where the source text has it too.
_AROUND = (
    # "Sure!"
    re.compile(rf"^\W*{_YES}\s*[!.:！。：]+[*_\s]*(?=\S)", re.IGNORECASE),
    # The tags that our instructions put around their material, and those of others.
    re.compile(rf"^<{_TAG}>\s*|\s*</{_TAG}>$", re.IGNORECASE),
    # A last paragraph such as "(Note: I kept the meaning of the original.)"
    re.compile(
        rf"\n[ \t]*\n[^\w\n]{{0,6}}(?:note|this {_THING}|i(?:['’]ve| have)? (?:tried|kept|changed)"
        rf"|let me know)\b[^\n]*\b(?:{_TASK}|original|meaning)\b[^\n]*$",
        re.IGNORECASE,
    ),
    # "**Changes made:** …"
    re.compile(
        r"\n[ \t]*\n[^\w\n]{0,6}(?:explanation|rationale|(?:key )?changes(?: made| i made)?|what i changed)"
        r"[*_ ]*:.*$",
        re.IGNORECASE | re.DOTALL,
    ),
    # "Let me know if you need anything else!"
    re.compile(
        r"(?:(?<=[.!?…)\"”*。！？])\s+|(?<=\S)(?:[ \t]*\n)+[ \t]*)[^\w\n]{0,4}(?:(?:and |but |so |please,? "
        r"|just |feel free to |(?:don['’]t|do not) hesitate to )*"
        r"(?:let me know|tell me (?:if|whether)|reach out)\b"
        r"|(?:please )?feel free to\b|(?:please )?(?:don['’]t|do not) hesitate to\b"
        r"|(?:i (?:really )?)?hope (?:this|that|it) (?:helps?|works|meets|is (?:what|helpful|better))\b"
        r"|would you like (?:another|a different|me to (?:make|try|adjust|change|shorten)) "
        r"|is there anything else\b|does (?:this|that) (?:work|help)\b"
        r"|i(?:['’]d| would) be (?:happy|glad) to (?:adjust|revise|refine|change|rewrite|try)\b"
        r"|ich hoffe, (?:das|dies)|lass(?:en sie)? (?:es )?mich wissen|sag(?:en sie)? (?:mir )?bescheid"
        r"|n['’]hésitez pas|j['’]espère que (?:cela|ça)|espero que (?:esto|te|le|isso)|avísame|déjame saber"
        r"|spero che (?:questo|ti)|fammi sapere|laat (?:het )?(?:me|mij) weten"
        r"|дайте (?:мне )?знать|надеюсь, это"
        r"|希望(?:这|對|对)|如果(?:您|你)(?:还|需要|有)|如有(?:需要|其他))[^\n.!?。！？]*[.!?。！？]*[^\w\n]*$",
        re.IGNORECASE,
    ),
)
_FENCE = re.compile(r"^(`{3,}|~{3,})[^\n`]*\n(.*?)\n?[ \t]*\1$", re.DOTALL)
_FENCES = re.compile(r"^[ \t]*(?:`{3,}|~{3,})", re.MULTILINE)
_JSON = re.compile(rf"""^[{{\[]\s*["']|[{{,]\s*["'](?:\w+[_ ])?{_TASK}\s*["']\s*:""", re.IGNORECASE)
_NEW_TEXT = re.compile(rf"{_TASK}|^(?:(?:new|final)\b|{_THING}$|{_VERSION}$|content$)", re.IGNORECASE)
# What gives an answer away that cannot be mended: talk without an end to cut at, tags.
_TALK = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"</?(?:{_THOUGHT}|prompt|{_TAG})>",
        rf"^[^\n]{{0,60}}\b(?:here(?:['’]s| is| are)|this is|below (?:is|are)|i(?:['’]ve| have))\b"
        rf"[^\n.]{{0,60}}\b{_TASK}",
        rf"\b(?:{_TASK}|original|dispreferred|preferred|revised|improved) {_THING}\b",
        # "That's an excellent answer - more specific and to the point."
        r"^\W*(?:that['’]s|this is|it['’]s|what) an? (?:\w+ )?(?:excellent|great|good|better|clear|concise"
        rf"|perfect|fine|nice|wonderful) {_THING_OF_ITS_OWN}\b",
        rf"\bmore (?:specific|concise|detailed|direct|precise|natural|formal|polite) {_THING_OF_ITS_OWN}\b",
    )
)
_SPEAKS_OF_TASK = re.compile(r"\b(?:paraphras|reword|rephras|rewrit|rewrote|restat)\w*", re.IGNORECASE)
_VERSIONS = re.compile(
    # "Version 1:", "**Option A**", "Variante 2 :", "版本一："
    rf"^\W*(?:{_TASK}|version|variant\w*|variation|alternativ\w+|option|draft|versi\w+|opci\w+"
    rf"|opç\w+|opzion\w+|вариант|版本|选项)(?: {_THING})?\s?#?\s?(?:\d+|[a-c]|one|i+|一)[ *_]*[:：.)\n–—-]"
    # a paragraph "Or:" between two
    r"|\n[ \t]*[*_]*(?:or|alternatively|oder|o bien|或者?)[*_]*[,:：]?[*_]*[ \t]*\n",
    re.IGNORECASE,
)
_ITEM = re.compile(r"^[*_ ]*(?:\(?\d{1,2}[.):]|[-•*])[*_]*[ \t]+", re.MULTILINE)
_ONLY_ITEM = re.compile(r"^[*_ ]*\(?1[.):][*_]*[ \t]+(?=\D)")
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "「": "」"}
_SENTENCE_END = re.compile(  # behind no numbers of lists and no abbreviations
    r"(?<!\b\d)(?<!\b\d\d)(?<!\b[A-Z])(?<!\b[MD]r)(?<!\bMs)(?<!\bMrs)(?<!\bSt)"
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\betc)"
    r"[.!?…][\"”’')\]*_]*(?=\s)|[。！？][」』”’）]*"
)
_WHOLE = re.compile(r"[.!?…。！？][\"”’')\]*_」』）]*\s*$")


def clean(text: str, source: str = "", *, introduced: bool = True) -> str:
    """Take off a generated text what the model put around it.

    That is reasoning, control tokens, introductions, labels, tags, code fences, JSON, a list's lone number,
    quotes and closing remarks, one in another too. What the `source` text has itself stays. So does an
    introduction where the source speaks of such a task, and with `introduced=False`: a person's "Rewrite this
    in French:" is no talk around a paraphrase of it.

    >>> clean('Sure! Here is a paraphrase:\\n\\n"Larks sing in flight." Let me know if it helps.')
    'Larks sing in flight.'
    """
    text, source = without_tokens(text, source), source.strip()
    introductions = _INTRODUCTIONS if introduced and not _SPEAKS_OF_TASK.search(source) else ()
    taken = [pattern for pattern in (*_TOKENS, *introductions, *_AROUND) if not pattern.search(source)]
    before = None
    while text != before:  # each turn takes one layer off
        before = text
        text = _unwrapped(text, source).strip()
        for pattern in taken:
            text = pattern.sub("", text).strip()
    return text


def without_tokens(text: str, source: str = "") -> str:
    """A text without reasoning and a template's control tokens around it, in a form that fits into a file.

    >>> without_tokens("<|im_start|>assistant\\nLarks sing.<|im_end|>")
    'Larks sing.'
    """
    text = text.encode("utf-8", "replace").decode().strip()  # a lone surrogate fits into no file
    before = None
    while text != before:
        before = text
        for pattern in (_REASONING, *_TOKENS):
            if not pattern.search(source):
                text = pattern.sub("", text).strip()
    return text


def whole_sentences(text: str) -> str:
    """What stands before the sentence in which a text was cut off; empty where none had ended.

    >>> whole_sentences("Larks sing. They nest on the gro")
    'Larks sing.'
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else ""


def is_whole(text: str) -> bool:
    """Whether a text ends where a sentence does."""
    return _WHOLE.search(text) is not None


def is_task_talk(text: str, source: str = "") -> bool:
    """Whether a cleaned text still speaks about the task, in a way that its source does not.

    >>> is_task_talk("I have rephrased it for you without changing what it says. Larks sing.")
    True
    """
    is_introduced = any(pattern.search(text) for pattern in _INTRODUCTIONS)
    if is_introduced and not _SPEAKS_OF_TASK.search(source):
        return True
    return any(pattern.search(text) and not pattern.search(source) for pattern in _TALK)


def has_markup(text: str, source: str = "") -> bool:
    """Whether a cleaned text holds what no reader should see, and its source does not.

    That is a template's control tokens, half a code fence or one at the beginning, and JSON.

    >>> has_markup('{"paraphrase": "Larks sing')
    True
    """
    fences = [*_FENCES.finditer(text)]
    is_fenced = bool(fences) and (len(fences) % 2 == 1 or fences[0].start() == 0)
    return (
        (is_fenced and not _FENCES.search(source))
        or (re.search(_CONTROL, text) is not None and not re.search(_CONTROL, source))
        or (_JSON.search(text) is not None and not _JSON.search(source))
    )


def is_several_versions(text: str, source: str = "", *, paraphrase: bool = True) -> bool:
    """Whether a cleaned text is a choice of several texts, where its source is no list.

    A list is one for a `paraphrase`, which has the layout of its source; else only a list whose every item
    is at least half as long as the source.

    >>> is_several_versions("1. Larks sing.\\n2. A lark sings.", "A lark is singing.")
    True
    """
    if _VERSIONS.search(text) and not _VERSIONS.search(source):
        return True
    if _ITEM.search(source) or not _ITEM.match(text):
        return False
    items = [item.strip() for item in _ITEM.split(text)[1:]]
    return len(items) > 1 and (paraphrase or all(2 * len(item) >= len(source) for item in items))


def _unwrapped(text: str, source: str) -> str:
    """A text out of a code fence, JSON, a list of one item or quotes, if all of it is in there."""
    if (fenced := _FENCE.match(text)) and not _FENCE.match(source) and not _FENCES.search(fenced[2]):
        return fenced[2]
    if text[:1] in ("{", "[", '"') and source[:1] not in ("{", "[", '"'):
        try:
            found = list(_texts(json.loads(text)))
        except (ValueError, RecursionError):
            found = []
        if len(found) == 1:
            return found[0]
    if _ONLY_ITEM.match(text) and len(_ITEM.findall(text)) == 1 and not _ITEM.match(source):
        return _ONLY_ITEM.sub("", text)
    return text if _is_quoted(source) or not _is_quoted(text) else text[1:-1]


def _texts(value: object) -> Iterator[str]:
    """The texts in a JSON value: of an object those whose name says so, or else all."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        named = [one for name, one in value.items() if _NEW_TEXT.search(name)]
        for one in named or value.values():
            yield from _texts(one)


def _is_quoted(text: str) -> bool:
    """Whether one pair of quotes wraps the whole text."""
    return len(text) > 2 and _QUOTES.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1])
