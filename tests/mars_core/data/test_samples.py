"""What the built-in data promises. The reasons for each choice are worked out again from the rows' texts."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mars_core.data import samples
from mars_core.data.dialogue import transcript, turns
from mars_core.data.samples import SAMPLES, SamplesError, preferences, rows
from mars_core.evaluation.benchmarks.rewardbench import SECTIONS
from mars_core.evaluation.benchmarks.rewardbench2 import ROWS

PAIRS = preferences()
BENCH = rows("sample://rewardbench")
BENCH2 = rows("sample://rewardbench2")
Row = dict[str, str]


def rows_of(source: str) -> list[Row]:
    return [row for row in PAIRS if row["source"] == f"sample/{source}"]


def subset(*names: str) -> list[Row]:
    return [row for row in BENCH if row["subset"] in names]


def normalised(text: str) -> str:
    return " ".join(text.lower().split())


def longer_wins(rows: list[Row]) -> float:
    return sum(len(row["chosen"]) > len(row["rejected"]) for row in rows) / len(rows)


# ------------------------------------------------------------------------------------------------ both sets


def test_the_four_sources_are_equally_large_and_make_at_least_800_pairs() -> None:
    counts = Counter(row["source"] for row in PAIRS)
    assert set(counts) == {"sample/chat", "sample/instruction", "sample/safety", "sample/reasoning"}
    assert len(set(counts.values())) == 1
    assert len(PAIRS) >= 800


def test_the_benchmark_has_ten_pairs_of_each_subset() -> None:
    official = {name for weights in SECTIONS.values() for name in weights}
    assert Counter(row["subset"] for row in BENCH) == dict.fromkeys(official, 10)


def test_the_second_benchmark_has_six_prompts_of_each_subset_and_ties_have_theirs_twice() -> None:
    assert Counter(row["subset"] for row in BENCH2) == dict.fromkeys(ROWS, 6) | {"Ties": 12}
    answers = {(row["num_correct"], row["num_incorrect"]) for row in BENCH2 if row["subset"] != "Ties"}
    assert answers == {(1, 3)}
    ties = {row["id"]: row for row in BENCH2 if row["subset"] == "Ties"}
    assert set(ties) == {f"{kind}:{number}" for kind in ("ref", "tied") for number in range(6)}
    for number in range(6):
        reference, tied = ties[f"ref:{number}"], ties[f"tied:{number}"]
        assert (reference["num_correct"], tied["num_correct"] > 1) == (1, True)
        assert normalised(reference["chosen"][0]) in map(normalised, tied["chosen"])


def test_no_two_answers_to_a_prompt_of_the_second_benchmark_are_equal_and_no_length_gives_it_away() -> None:
    for row in BENCH2:
        answers = [*row["chosen"], *row["rejected"]]
        assert len(set(answers)) == len(answers), row
        assert all(text.strip() == text != "" for text in (row["prompt"], *answers)), row
    best_of_four = [row for row in BENCH2 if row["subset"] != "Ties"]
    for extreme in (max, min):
        right = [
            len(row["chosen"][0]) == extreme(map(len, [*row["chosen"], *row["rejected"]]))
            for row in best_of_four
        ]
        assert sum(right) / len(right) < 0.3


def test_ids_and_prompts_are_distinct_and_no_prompt_is_in_two_sets() -> None:
    assert len({row["id"] for row in PAIRS}) == len(PAIRS)
    assert len({row["id"] for row in BENCH}) == len(BENCH)
    prompts = {normalised(row["prompt"]) for row in (*PAIRS, *BENCH, *BENCH2)}
    assert len(prompts) == len(PAIRS) + len(BENCH) + len(BENCH2)


def test_every_row_has_its_columns_as_text_and_two_different_responses() -> None:
    assert {tuple(row) for row in PAIRS} == {("id", "prompt", "chosen", "rejected", "source")}
    assert {tuple(row) for row in BENCH} == {("id", "subset", "prompt", "chosen", "rejected")}
    for row in PAIRS + BENCH:
        assert all(value.strip() == value != "" for value in row.values()), row
        assert normalised(row["chosen"]) != normalised(row["rejected"]), row


def test_rows_that_a_caller_changes_are_whole_for_the_next() -> None:
    preferences()[0].clear()
    assert preferences() == PAIRS


def test_the_longer_response_wins_about_as_often_as_it_loses() -> None:
    assert 0.4 < longer_wins(PAIRS) < 0.6
    assert 0.4 < longer_wins(BENCH) < 0.6
    for source in ("chat", "instruction", "safety", "reasoning"):
        assert 0.25 < longer_wins(rows_of(source)) < 0.75, source
    for section, weights in SECTIONS.items():
        assert 0.25 < longer_wins(subset(*weights)) < 0.75, section


def test_about_one_prompt_in_ten_is_a_dialogue_of_two_or_three_turns() -> None:
    lengths = Counter(len(turns(row["prompt"])) for row in PAIRS)
    assert lengths.keys() == {1, 2, 3}
    assert 0.08 < (lengths[2] + lengths[3]) / len(PAIRS) < 0.12


def test_prompts_are_transcripts_that_end_with_the_user() -> None:
    for row in PAIRS + BENCH:
        dialogue = turns(row["prompt"])
        assert transcript(dialogue) == row["prompt"]
        assert dialogue[-1].role == "user"


def test_the_samples_need_no_torch() -> None:
    code = "import sys, mars_core.data.samples as s; s.preferences(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("source", SAMPLES, ids=str)
def test_a_changed_or_missing_file_is_named(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "built_in" / f"{source.removeprefix('sample://')}.jsonl"
    monkeypatch.setattr(samples, "files", lambda package: tmp_path)
    with pytest.raises(SamplesError, match=rf"{source}: .*{file.name} cannot be read"):
        rows(source)
    file.parent.mkdir()
    file.write_text("{}\n")
    with pytest.raises(SamplesError, match=rf"{file.name} is not the file .* {SAMPLES[source]}; restore it"):
        rows(source)


# ----------------------------------------------------------------------------------------------------- chat

CAPITALS = """Norway: Oslo, Japan: Tokyo, Peru: Lima, Kenya: Nairobi, Hungary: Budapest, Thailand: Bangkok,
Poland: Warsaw, Iceland: Reykjavik, Canada: Ottawa, Turkey: Ankara, Portugal: Lisbon, Vietnam: Hanoi,
Mongolia: Ulaanbaatar, Morocco: Rabat, Chile: Santiago, Ghana: Accra, South Korea: Seoul, Ukraine: Kyiv,
Georgia: Tbilisi, Brazil: Brasília, Egypt: Cairo, Switzerland: Bern, India: New Delhi, Denmark: Copenhagen"""
CURRENCIES = """Norway: krone, Japan: yen, Peru: sol, Kenya: shilling, Hungary: forint, Thailand: baht,
Poland: zloty, Iceland: króna, Canada: dollar, Turkey: lira, Portugal: euro, Vietnam: dong, Mongolia: tugrik,
Morocco: dirham, Chile: peso, Ghana: cedi, South Korea: won, Ukraine: hryvnia, Georgia: lari, Brazil: real,
Egypt: pound, Switzerland: franc, India: rupee, Denmark: krone"""
SYMBOLS = """gold: Au, silver: Ag, iron: Fe, sodium: Na, potassium: K, copper: Cu, tin: Sn, lead: Pb,
mercury: Hg, tungsten: W, antimony: Sb, helium: He"""
YOUNG = """cow: calf, horse: foal, sheep: lamb, goat: kid, swan: cygnet, kangaroo: joey, deer: fawn,
bear: cub, frog: tadpole, goose: gosling, hare: leveret, seal: pup"""
AUTHORS = """Pride and Prejudice: Jane Austen, Moby-Dick: Herman Melville, Don Quixote: Miguel de Cervantes,
Frankenstein: Mary Shelley, War and Peace: Leo Tolstoy, Hamlet: William Shakespeare,
Faust: Johann Wolfgang von Goethe, the Odyssey: Homer, Ulysses: James Joyce, The Metamorphosis: Franz Kafka,
Middlemarch: George Eliot, Walden: Henry David Thoreau"""
ANSWER_KEYS = {
    r"the capital of (.+?)[?.]": CAPITALS,
    r"(?s)(?:money|currency).* in (.+?)\?": CURRENCIES,
    r"trip to (.+?)\?|flying to (.+?) next|currency of (.+?) called": CURRENCIES,
    r"(?s)capital of (.+?)\?.*(?:money|currency)": CURRENCIES,
    r"symbol for (.+?)\?|stand for (.+?) in|How is (.+?) written": SYMBOLS,
    r"young (\w+?) called|for a baby (\w+?)\.|young of a (\w+?)\?": YOUNG,
    r"Who wrote (.+?)\?|thank for (.+?)\?|club is reading (.+?)\.": AUTHORS,
}
GOAL = re.compile(
    r"How do I (.+)\?|best way to (.+)\?|I would like to (.+)\. Any|advice on how to (.+)\?"
    r"|brother wants to (.+)\. What|What helps if you want to (.+)\?"
)
INSULT = re.compile(
    r"(?i)\b(stupid|lazy|pathetic|useless|idiot|boring|embarrass\w*|ridiculous|garbage|dull|disgusting|awful"
    r"|fault|whining|grow up|who cares|deserve|go away|waste\w*|weak|ignorant|childish|clumsy|messy|creep"
    r"|hates?|give up|losers?|silly|serves you)\b"
)


def answer_key(prompt: str) -> str | None:
    """The answer to a factual question, by the key above."""
    found = None
    for pattern, key in ANSWER_KEYS.items():
        if match := re.search(pattern, prompt):
            subject = next(group for group in match.groups() if group)
            answers = dict(re.split(r":\s+", entry) for entry in re.split(r",\s+", key))
            found = answers.get(subject, found)
    return found


def test_factual_chat_states_the_right_answer_in_the_chosen_response_only() -> None:
    factual = [(row, answer) for row in rows_of("chat") if (answer := answer_key(row["prompt"]))]
    assert len(factual) > 80
    for row, answer in factual:
        assert re.search(rf"\b{answer}\b", row["chosen"]), row
        assert not re.search(rf"\b{answer}\b", row["rejected"]), row


def test_advice_is_about_what_was_asked_in_the_chosen_response_only() -> None:
    asked = [(row, match) for row in rows_of("chat") if (match := GOAL.search(row["prompt"]))]
    assert len(asked) > 60
    for row, match in asked:
        goal = match[match.lastindex or 0].lower()
        assert goal in row["chosen"].lower(), row
        assert goal not in row["rejected"].lower(), row


def test_everyday_messages_get_a_friendly_word_and_mostly_an_insult_on_the_other_side() -> None:
    chat = rows_of("chat")
    everyday = [row for row in chat if not (answer_key(row["prompt"]) or GOAL.search(row["prompt"]))]
    insulted = [row for row in everyday if INSULT.search(row["rejected"])]
    assert len(everyday) >= 35
    assert not [row for row in everyday if INSULT.search(row["chosen"])]
    assert len(insulted) > 0.6 * len(everyday)


# ---------------------------------------------------------------------------------------------- instruction

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS = {word: value for value, word in enumerate(WORDS, start=1)}
RuleCheck = Callable[[Row, str, str], bool]


def words(text: str) -> list[str]:
    return [word.strip(".,!\"'").lower() for word in text.split()]


def number(text: str) -> int:
    return NUMBERS.get(text) or int(text)


def requested(row: Row) -> int:
    """How many things a request like "Name three fruits." asks for."""
    match = re.search(r"\b(?:Name|need|Give me|Think of) (\w+)", row["prompt"])
    assert match, row
    return NUMBERS[match[1]]


def listed(text: str) -> list[str]:
    """The items after an introduction, if there is one, and before a closing sentence."""
    return re.split(r"\.(?:\s|$)", text.split(": ")[-1])[0].split(", ")


def given(row: Row) -> list[str]:
    """The words that the prompt gives to be sorted, reversed or thinned out."""
    match = re.search(r"(?:words|list|reads|my list): (.+?)\.", row["prompt"])
    assert match, row
    return match[1].split(", ")


def is_list(row: Row, response: str, head: str) -> bool:
    return len(re.findall(rf"(?m)^{head} \w+$", response)) == requested(row)


def is_json_array(response: str) -> bool:
    try:
        return all(isinstance(item, str) for item in json.loads(response))
    except json.JSONDecodeError:
        return False


MEMBERS = {
    "vegetables": {"leek", "pea", "potato"},
    "pieces of furniture": {"dresser"},
    "mammals": {"whale"},
    "tools": {"pliers"},
    "birds": {"robin"},
}
"""Of the categories that are asked about, the members that are asked about."""


def belongs(row: Row) -> str:
    match = re.search(r'"(\w+)" (?:belong to|among) the (.+?)\?', row["prompt"])
    assert match, row
    return "yes" if match[1] in MEMBERS.get(match[2], ()) else "no"


# the words of a rule, its letter, word or number as a group -> whether a response keeps it
RULES: dict[str, RuleCheck] = {
    r"exactly (\w+) words": lambda row, part, text: len(words(text)) == number(part),
    r'(?:End with the word|last word has to be|Let) "(.+?)"': lambda row, part, text: words(text)[-1] == part,
    r'(?:Begin|Start|first word).*? "(.+?)"\.': lambda row, part, text: words(text)[0] == part.lower(),
    r'the letter "(\w)" (?:anywhere|completely)': lambda row, part, text: part not in text.lower(),
    r'without the letter "(\w)"': lambda row, part, text: part not in text.lower(),
    r'(?:Mention|contain|Work) the word "(.+?)"': lambda row, part, text: part in words(text),
    r'(?:not use the word|Leave out the word|not say) "(.+?)"': lambda row, part, text: (
        part not in words(text)
    ),
    r"(upper case|everything in capital)": lambda row, part, text: text.isupper(),
    r"(lower case only|no capital)": lambda row, part, text: text.islower(),
    r"exactly (\w+) sentences?": lambda row, part, text: len(re.findall(r"\.( |$)", text)) == number(part),
    r"(double quot)": lambda row, part, text: text[0] == text[-1] == '"',
    r"(exclamation mark)": lambda row, part, text: text.endswith("!"),
    r"(bullet)": lambda row, part, text: is_list(row, text, "-"),
    r"(numbered list)": lambda row, part, text: is_list(row, text, r"\d\."),
    r"(alphabetical)": lambda row, part, text: listed(text) == sorted(given(row)),
    r"([Rr]everse)": lambda row, part, text: listed(text) == given(row)[::-1],
    r"(JSON array)": lambda row, part, text: is_json_array(text),
    r'(?:start with the letter|with the initial) "(\w)"': lambda row, part, text: all(
        item[0].lower() == part for item in listed(text)
    ),
    r'(?:Remove|again without) "(\w+)"': lambda row, part, text: (
        listed(text) == [word for word in given(row) if word != part]
    ),
    r"(yes or no)": lambda row, part, text: text.lower().rstrip(".") == belongs(row),
}


def test_chosen_keeps_the_rule_of_the_instruction_and_rejected_breaks_it() -> None:
    for row in rows_of("instruction"):
        found = [(re.search(pattern, row["prompt"]), rule) for pattern, rule in RULES.items()]
        [(part, kept)] = [(match[1], rule) for match, rule in found if match]
        assert kept(row, part, row["chosen"]), row
        assert not kept(row, part, row["rejected"]), row


def test_every_kind_of_rule_occurs() -> None:
    prompts = "\n".join(row["prompt"] for row in rows_of("instruction"))
    assert [pattern for pattern in RULES if not re.search(pattern, prompts)] == []


# --------------------------------------------------------------------------------------------------- safety

REFUSAL = re.compile(
    r"(?i)\bI (can't|cannot|won't|must decline|have to decline)|I'm not able|I am not able|I'd rather not"
)
HARM = re.compile(
    r"\b(while he is away|steal a|forge|fake|cheat|behind her back|without him knowing|blackmail|false rumour"
    r"|false insurance|tax office|trick pensioners|phishing|counterfeit|bribe|police check|race my friends"
    r"|secretly ruin|dog ill|explodes|knife into|smuggle|leftover prescription|into her drink|set fire"
    r"|virus on|scratch the car|tamper|break into|crash the website|credit card that I found"
    r"|somebody else's name|into the river|without a permit|monkey home|expired meat|does not exist"
    r"|pretend to be|private pictures|surprise her|copy the key|overcharge|broken brakes|rig the"
    r"|bomb threat|laser at|laxatives|bully|threaten|humiliating|hand them in|without a licence"
    r"|lonely teenager|starve|hidden camera|contains poison|lie to the judge)\b"
)
CARE = re.compile(r"(?i)please|don't|should|better|safer|always|never|stay|call|climb down")
COMPLACENT = re.compile(
    r"(?i)\b(fine|just|go ahead|relax|worry|nobody|sure|no need|take it down|why not|if it works|the same)\b"
)


def test_dangerous_requests_are_refused_with_help_on_offer_and_harmless_ones_are_answered() -> None:
    kinds = Counter[str]()
    for row in rows_of("safety"):
        refuses = bool(REFUSAL.search(row["chosen"])), bool(REFUSAL.search(row["rejected"]))
        dangerous = bool(HARM.search(row["prompt"]))
        if dangerous:
            assert refuses == (True, False), row
            assert len(re.findall(r"[.?!](?: |$)", row["chosen"])) >= 2, ("no offer", row)
        elif refuses == (False, False):
            assert CARE.search(row["chosen"]), row
            assert COMPLACENT.search(row["rejected"]), row
        else:
            assert refuses == (False, True), row
        kinds["dangerous" if dangerous else "harmless" if any(refuses) else "risky"] += 1
    assert min(kinds["dangerous"], kinds["harmless"], kinds["risky"]) > 20, kinds


# ------------------------------------------------------------------------------------------------ reasoning

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
CONCLUSION = re.compile(r"(?:answer is|Answer:|I get|guess is) ([\w.:]*\w)")
EQUATION = re.compile(r"(?<![\dx.])((?:\d[\d.]*)(?: [-+×÷*/] \d[\d.]*)+) = (\d+(?:\.\d+)?)")
LEAST = {"shortest": "taller", "youngest": "older", "slowest": "faster", "lightest": "heavier"}


def clock(hours: str, minutes: str, lasts: str) -> str:
    end = 60 * int(hours) + int(minutes) + int(lasts)
    return f"{end // 60:02d}:{end % 60:02d}"


def extreme(first: str, second: str, third: str, fourth: str, asked: str) -> str:
    """Who stands at an end of the order first > second, third > fourth."""
    return ({second, fourth} - {first, third} if asked in LEAST else {first, third} - {second, fourth}).pop()


SOLUTIONS: dict[str, Callable[..., object]] = {
    r"(\d+) (?:boxes with|bags of) (\d+).*?(?:gives|takes) (\d+)": lambda a, b, c: int(a) * int(b) - int(c),
    r"pays for (\d+) \w+ at (\d+) dollars": lambda a, b: 50 - int(a) * int(b),
    r"At (\d+) dollars apiece, (\d+)": lambda a, b: 50 - int(a) * int(b),
    r"at (\d+) km per hour for (\d+) hours": lambda a, b: int(a) * int(b),
    r"in (\d+) hours at (\d+) km": lambda a, b: int(a) * int(b),
    r"(\d+) dollars.*?(?:reduced by|discount of) (\d+) percent": lambda a, b: int(a) * (100 - int(b)) // 100,
    r"(?:average of|scores) (\d+), (\d+) and (\d+)": lambda a, b, c: (int(a) + int(b) + int(c)) // 3,
    r"(\d+) m long and (\d+) m wide. How many metres": lambda a, b: 2 * (int(a) + int(b)),
    r"(\d+) m long and (\d+) m wide. What is its area": lambda a, b: int(a) * int(b),
    r"is (\w+day).*? (\d+) days": lambda a, b: DAYS[(DAYS.index(a) + int(b)) % 7],
    r"(\w+) is \w+er than (\w+)\. (\w+) is \w+er than (\w+)\. Who is the (\w+)": extreme,
    r"(?:next:|sequence) (\d+), (\d+),.*? (\d+)(?:, …| by)": lambda a, b, last: int(last) + int(b) - int(a),
    r"(\d+\.\d+) or (\d+\.\d+)": lambda a, b: max(a, b, key=float),
    r"starts at (\d+):(\d+) and lasts (\d+)": clock,
    r"of (\d+) minutes end if it begins at (\d+):(\d+)": lambda a, b, c: clock(b, c, a),
    r"(\d+)/(\d+) of the (\d+)": lambda a, b, c: int(c) - int(c) * int(a) // int(b),
    r"Of (\d+) \w+, (\d+)/(\d+)": lambda a, b, c: int(a) - int(a) * int(b) // int(c),
    r"is (\d+) years old.* is (\d+) times.* in (\d+) years": lambda a, b, c: int(a) * int(b) + int(c),
    r"(\d+) \+ (\d+) × (\d+)": lambda a, b, c: int(a) + int(b) * int(c),
    r'the letter "(\w)".*? "(\w+)"': lambda letter, word: word.count(letter),
}


def solution(prompt: str) -> str:
    found = [(re.search(pattern, prompt), solve) for pattern, solve in SOLUTIONS.items()]
    [answer] = [solve(*match.groups()) for match, solve in found if match]
    return str(answer)


def conclusion(response: str) -> str:
    return CONCLUSION.findall(response)[-1]


def false_equations(text: str) -> list[str]:
    found = ((left, float(right)) for left, right in EQUATION.findall(text))
    return [left for left, right in found if eval(left.replace("×", "*").replace("÷", "/")) != right]


def test_chosen_reasoning_arrives_at_the_solution_by_true_equations_and_rejected_does_not_arrive() -> None:
    for row in rows_of("reasoning"):
        assert conclusion(row["chosen"]) == solution(row["prompt"]) != conclusion(row["rejected"]), row
        assert false_equations(row["chosen"]) == [], row


# ------------------------------------------------------------------------------------------------ benchmark

PYTHON_CASES: dict[str, list[tuple[tuple[object, ...], object]]] = {
    "largest": [(([-3, -7, -2],), -2)],
    "count_vowels": [(("education",), 5)],
    "is_palindrome": [(("level",), True), (("abca",), False)],
    "factorial": [((0,), 1), ((5,), 120)],
    "sum_even": [(([1, 2, 4, 7],), 6)],
    "clamp": [((5, 0, 3), 3), ((-1, 0, 3), 0)],
    "fibonacci": [((0,), 0), ((7,), 13)],
    "gcd": [((12, 18), 6)],
    "is_prime": [((1,), False), ((9,), False), ((13,), True)],
    "index_of": [(([4, 5, 6], 6), 2), (([4], 9), -1)],
}
MATHS_ANSWERS = ("20", "8", "27", "100", "820", "12", "66", "4", "11", "21")


def passes(source: str) -> bool:
    space: dict[str, Callable[..., object]] = {}
    exec(source, space)
    name = re.findall(r"def (\w+)", source)[0]
    try:
        return all(space[name](*arguments) == value for arguments, value in PYTHON_CASES[name])
    except ArithmeticError:
        return False


def test_python_programs_work_in_the_chosen_response_only() -> None:
    for row in subset("hep-python"):
        assert passes(row["chosen"]), row
        assert not passes(row["rejected"]), row


def test_programs_differ_from_their_buggy_versions_in_one_line() -> None:
    for language in ("cpp", "go", "java", "js", "python", "rust"):
        for row in subset(f"hep-{language}"):
            lines = zip(row["chosen"].splitlines(), row["rejected"].splitlines(), strict=True)
            assert sum(right != buggy for right, buggy in lines) == 1, row


def test_worked_solutions_end_at_the_answer_in_the_chosen_response_only() -> None:
    for row, answer in zip(subset("math-prm"), MATHS_ANSWERS, strict=True):
        assert false_equations(row["chosen"]) == [], row
        assert re.findall(r"\d+", row["chosen"])[-1] == answer != re.findall(r"\d+", row["rejected"])[-1], row


def test_what_should_be_refused_is_refused_and_what_should_be_answered_is_answered() -> None:
    for row in subset("refusals-dangerous", "refusals-offensive", "xstest-should-refuse"):
        assert REFUSAL.search(row["chosen"]), row
        assert not REFUSAL.search(row["rejected"]), row
    for row in subset("xstest-should-respond"):
        assert not REFUSAL.search(row["chosen"]), row
        assert REFUSAL.search(row["rejected"]), row
