import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_core.data.dialogue import Turn, transcript, turns

HH = "Human: What is a lark?\n\nAssistant: A small songbird.\n\nHuman: Does it sing in flight?"
HH_TURNS = [
    Turn("user", "What is a lark?"),
    Turn("assistant", "A small songbird."),
    Turn("user", "Does it sing in flight?"),
]

words = st.lists(st.sampled_from(["Human:", "Assistant: ", "System:", "\n\n", "\n", " ", "lark", "é"])).map(
    "".join
)
one_line = st.text(st.characters(exclude_characters="\n\r")).map(str.strip)


def dialogues(text):
    return st.lists(
        st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), text), min_size=1, max_size=4
    )


def test_a_prompt_without_speakers_is_one_user_turn():
    assert turns("What is\n\na lark?") == [Turn("user", "What is\n\na lark?")]


def test_a_transcript_is_split_where_a_speaker_begins():
    assert turns(HH) == HH_TURNS
    assert turns("\n\n" + HH) == HH_TURNS
    assert turns("System: Be brief.\n\nHuman:Hi") == [Turn("system", "Be brief."), Turn("user", "Hi")]


def test_a_speaker_in_the_middle_of_a_line_or_paragraph_begins_no_turn():
    text = "Human: In the play, Human: means the chorus.\nAssistant: means the lead."
    assert turns(text) == [Turn("user", text.removeprefix("Human: "))]


def test_a_prompt_that_quotes_a_transcript_is_still_one_user_turn():
    quoting = f"Summarise this conversation.\n\n{HH}"
    assert turns(quoting) == [Turn("user", quoting)]
    assert transcript([Turn("user", quoting)]) == quoting


def test_a_single_user_turn_is_stored_as_its_text_and_others_with_speakers():
    assert transcript([Turn("user", "Hi")]) == "Hi"
    assert transcript([Turn("system", "Be brief.")]) == "System: Be brief."
    assert transcript(HH_TURNS) == HH


@given(dialogues(words))
def test_what_transcript_accepts_is_read_back_unchanged(dialogue):
    try:
        text = transcript(dialogue)
    except ValueError:
        return
    assert turns(text) == dialogue


@given(dialogues(one_line))
def test_turns_of_one_line_are_always_accepted(dialogue):
    assert turns(transcript(dialogue)) == dialogue


@given(words)
def test_every_prompt_that_was_read_can_be_stored_again(prompt):
    assert turns(transcript(turns(prompt))) == turns(prompt)


@pytest.mark.parametrize(
    ("dialogue", "said"),
    [
        (
            [Turn("user", "Hi"), Turn("assistant", "Hello\n\nHuman: and?")],
            "contains the start of another turn",
        ),
        ([Turn("tool", "42")], "unknown role: 'tool', where system, user, assistant are known"),
        ([], "a dialogue without turns"),
    ],
    ids=["marker", "role", "empty"],
)
def test_a_dialogue_that_would_be_read_differently_is_refused(dialogue, said):
    with pytest.raises(ValueError, match=said):
        transcript(dialogue)
