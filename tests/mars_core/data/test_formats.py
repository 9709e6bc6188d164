"""Each format that people have is read to the same pair, or refused with the cause and what to do."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers

from mars_core.config import ConfigError, validated
from mars_core.data.conversations import spoken
from mars_core.data.formats.by_columns import OTHERS
from mars_core.data.formats.format import Format, Pair
from mars_core.data.pairs import DataConfig, three_sets
from mars_core.data.reading import read
from mars_core.data.source_rows import PairsError
from mars_core.experiment import ExperimentConfig
from mars_core.model.reward_model import ModelConfig, RewardModel

Q, C, R = "How is a kettle cleaned?", "With vinegar, and then water.", "Buy another."
PAIR = {"prompt": Q, "chosen": C, "rejected": R}
TRANSCRIPT = f"\n\nHuman: {Q}\n\nAssistant:"
TRANSCRIPTS = {"chosen": f"{TRANSCRIPT} {C}", "rejected": f"{TRANSCRIPT} {R}"}
THREE_TURNS = f"Human: {Q}\n\nAssistant: Which kind?\n\nHuman: A steel one."


def turns(*texts, roles=("user", "assistant")):
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def said(role, text):
    return {"role": role, "content": text}


def conversations(*before, roles=("user", "assistant")):
    """A row with two conversations that begin with the turns `before` and Q."""
    return {name: [*before, *turns(Q, text, roles=roles)] for name, text in (("chosen", C), ("rejected", R))}


@pytest.fixture
def source(tmp_path):
    """Write rows as JSON lines; the file's name."""

    def write(*rows, name="pairs.jsonl"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(file)

    return write


def texts(table):
    return list(zip(table["prompt"], table["chosen"], table["rejected"], strict=True))


SAME = {
    "conversations": conversations(),
    "prompt in transcripts": {"prompt": TRANSCRIPT} | TRANSCRIPTS,
    "prompt in responses": {"prompt": Q, "chosen": f"{Q}\n{C}", "rejected": f"{Q}\n{R}"},
    "transcripts beside a plain prompt": {"prompt": Q} | TRANSCRIPTS,
    "empty prompt": {"prompt": ""} | conversations(),
    "null prompt": {"prompt": None} | conversations(),
    "empty list as prompt": {"prompt": []} | conversations(),
    "empty system turn": conversations(said("system", "")),
    "text parts": {
        "prompt": [said("user", [{"type": "text", "text": Q}])],
        "chosen": [said("assistant", [{"type": "text", "text": C, "image": None}])],
        "rejected": [said("assistant", [{"type": "text", "text": R}])],
    },
    "JSON as text": {"prompt": Q} | {name: json.dumps(value) for name, value in conversations().items()},
    "Python as text": {name: str(value) for name, value in conversations().items()},
    "numpy as text": {
        name: str(value).replace("}, {", "}\n {") for name, value in conversations().items()
    },
    "question": {"question": Q, "chosen": C, "rejected": R},
    "other responses": {"question": Q, "history": [], "response_chosen": C, "response_rejected": R},
    "input alone": {"system": None, "input": Q, "chosen": C, "rejected": R, "rating": [9.0, 7.0]},
    "instruction": {"instruction": Q, "input": "", "chosen": C, "rejected": R},
    "messages": {"messages": [said("user", Q)], "chosen": C, "rejected": R},
    "messages of the chosen": {"messages": turns(Q, C), "chosen": C, "rejected": R},
    "prompt beside messages": PAIR | {"messages": turns(Q, C)},
    "from and value": {
        "conversations": [{"from": "human", "value": Q}],
        "chosen": {"from": "gpt", "value": C},
        "rejected": {"from": "gpt", "value": R},
    },
    "one message": PAIR | {"chosen": said("assistant", C), "rejected": said("assistant", R)},
    "history as a prompt": {"history": Q, "chosen": C, "rejected": R},
    "transcripts": TRANSCRIPTS,
    "CR LF": {name: text.replace("\n", "\r\n") for name, text in TRANSCRIPTS.items()},
    "human and gpt": conversations(roles=("human", "gpt")),
    "capitals": conversations(roles=("User", "Assistant")),
    "model": conversations(roles=("user", "model")),
    "better of two": {"prompt": Q, "response_0": R, "response_1": C, "better_response_id": 1},
    "winner": {"question": Q, "response_a": C, "response_b": R, "winner": "model_a"},
    "signed": {"context": turns(Q), "response1": C, "response2": R, "overall_preference": -2},
    "signed the other way": {"context": turns(Q), "response1": R, "response2": C, "overall_preference": 1.0},
    "ranks": {"prompt": Q, "answers": [{"answer": R, "rank": 2.0}, {"answer": C, "rank": 1.0}]},
    "list of ranks": {"prompt": Q, "responses": [R, C], "ranks": [2, 1]},
    "completions with scores": {
        "instruction": Q,
        "completions": [{"response": R, "overall_score": 2.5}, {"response": C, "overall_score": 8}],
    },
    "list of ratings": {"instruction": Q, "generations": [C, R], "ratings": [5, "1"]},
    "one against many": PAIR | {"rejected": [R]},
}  # fmt: skip


@pytest.mark.parametrize("row", SAME.values(), ids=SAME)
def test_the_same_pair_is_read_from_every_format(source, row):
    assert texts(read(source(row)).table) == [(Q, C, R)]


WITH_A_SYSTEM_PROMPT = {
    "column": {"system": "Be brief."} | PAIR,
    "prompt alone": {"prompt": [said("system", "Be brief."), said("user", Q)]} | conversations(),
    "column and turn": {"system_prompt": "Be brief."} | conversations(said("system", "Be brief.")),
    "developer": conversations(said("developer", "Be brief.")),
}


@pytest.mark.parametrize("row", WITH_A_SYSTEM_PROMPT.values(), ids=WITH_A_SYSTEM_PROMPT)
def test_a_system_prompt_comes_first_and_the_question_once(source, row):
    assert texts(read(source(row)).table) == [(f"System: Be brief.\n\nHuman: {Q}", C, R)]


WITH_EARLIER_TURNS = {
    "CR LF": {"prompt": f"{THREE_TURNS}\n\nAssistant:".replace("\n", "\r\n"), "chosen": C, "rejected": R},
    "history": {"prompt": "A steel one.", "history": [[Q, "Which kind?"]], "chosen": C, "rejected": R},
    "history of turns": {
        "prompt": "A steel one.", "history": turns(Q, "Which kind?"), "chosen": C, "rejected": R
    },
    "continued": {"prompt": turns(Q, "Which kind?")} | {
        name: turns("A steel one.", text) for name, text in (("chosen", C), ("rejected", R))
    },
    "overlapping": {"prompt": turns(Q, "Which kind?", "A steel one.")} | {
        name: turns("A steel one.", text) for name, text in (("chosen", C), ("rejected", R))
    },
}  # fmt: skip


@pytest.mark.parametrize("row", WITH_EARLIER_TURNS.values(), ids=WITH_EARLIER_TURNS)
def test_earlier_turns_are_kept_in_order_and_once(source, row):
    assert texts(read(source(row)).table) == [(THREE_TURNS, C, R)]


def plain_rewards(folder, messages):
    """Rewards of C and R behind these messages, by plain transformers, one text at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rewards = []
    for dialogue in ([*messages, said("assistant", response)] for response in (C, R)):
        if tokenizer.chat_template:
            ids = tokenizer.apply_chat_template(dialogue, tokenize=True, return_dict=False)
        else:
            spoken = {"system": "System", "user": "Human", "assistant": "Assistant"}
            text = "\n\n".join(f"{spoken[turn['role']]}: {turn['content']}" for turn in dialogue)
            ids = tokenizer(text + tokenizer.eos_token)["input_ids"]
        with torch.no_grad():
            rewards.append(network(torch.tensor([ids])).logits.item())
    return rewards


@pytest.mark.parametrize("name", ["tiny_decoder", "tiny_chat_decoder"])
def test_from_every_format_a_pair_has_the_rewards_of_its_dialogue_in_plain_transformers(
    source, request, name
):
    folder = request.getfixturevalue(name)
    model = RewardModel.load(str(folder), ModelConfig(max_length=256, precision="float32"))
    cases = [
        (SAME, [said("user", Q)]),
        (WITH_A_SYSTEM_PROMPT, [said("system", "Be brief."), said("user", Q)]),
        (WITH_EARLIER_TURNS, turns(Q, "Which kind?", "A steel one.")),
    ]
    found = [[texts(read(source(row)).table)[0] for row in rows.values()] for rows, _ in cases]
    expected = [plain_rewards(folder, messages) for _, messages in cases]
    assert len({round(reward, 4) for rewards in expected for reward in rewards}) == 6
    for pairs, rewards in zip(found, expected, strict=True):
        prompts, chosen, rejected = zip(*pairs, strict=True)
        np.testing.assert_allclose(model.score(prompts, chosen), rewards[0], atol=1e-5)
        np.testing.assert_allclose(model.score(prompts, rejected), rewards[1], atol=1e-5)


@pytest.mark.parametrize(
    "prompt", ["System: Linux. How is a kettle cleaned?", "Assistant: what does it mean?"]
)
def test_a_question_that_begins_like_a_speaker_is_one_user_turn(source, prompt):
    assert list(read(source(PAIR | {"prompt": prompt})).table["prompt"]) == [f"Human: {prompt}"]


def test_a_response_that_begins_with_a_short_prompt_stays_whole(source):
    row = {"prompt": "Hi", "chosen": "Hi\nHow can I help?", "rejected": "Hi! What?"}
    assert texts(read(source(PAIR, row)).table)[1] == tuple(row.values())


def test_a_play_that_was_asked_for_is_a_response(source):
    play = "Human: Hello.\n\nAssistant: Good day."
    row = {"prompt": "Write a dialogue.", "chosen": play, "rejected": "Human: Hm.\n\nAssistant: Hm."}
    assert texts(read(source(row)).table)[0][1] == play


def test_json_that_was_asked_for_is_a_response(source):
    row = PAIR | {"chosen": '{"role": "admin", "name": "Ada"}', "rejected": '[{"role": "guest"}] is JSON'}
    assert texts(read(source(row)).table)[0][1:] == (row["chosen"], row["rejected"])


def test_dates_and_ids_stay_the_text_that_they_are(source):
    row = {"id": "007", "prompt": "When?", "chosen": "2024-01-02", "rejected": "2024-01-02T03:04:05"}
    table = read(source(row)).table
    assert texts(table) == [("When?", "2024-01-02", "2024-01-02T03:04:05")]
    assert list(table["pair_id"]) == ["007"]


def calling(text):
    """A row whose chosen response calls a function."""
    call = {"type": "function", "function": {"name": "stock", "arguments": "{}"}}
    return PAIR | {
        "chosen": [said("assistant", text) | {"tool_calls": [call]}],
        "rejected": [said("assistant", R)],
    }


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (calling(C), "chosen has a turn with tool_calls"),
        (calling(None), "chosen has a turn with tool_calls, content: null"),
        (PAIR | {"prompt": [said("user", Q), said("tool", "3")]}, "unknown role: 'tool' in prompt"),
        (PAIR | {"prompt": [said("user", [{"type": "image", "image": "a.jpg"}])]},
         "prompt has a part of type image"),
        (PAIR | {"prompt": [{"speaker": "a", "text": Q}]},
         "prompt is neither text nor a list of turns with role and content"),
        (PAIR | {"chosen": '[{"role": "user", "content": "cut', "rejected": '[{"role": "user", "con]'},
         "rejected looks like turns that were written out as text, and does not parse"),
        ({"prompt": "Why?"} | conversations(), "the prompt and the conversations begin differently"),
        ({"system": "Hm."} | conversations(said("system", "Be brief.")), "system is not the system prompt"),
        (PAIR | {"images": ["a.jpg"]}, "images is not empty; a reward model reads text alone"),
        (conversations() | {"rejected": turns(Q, R, "And?", "Hm.")}, "chosen and rejected differ before"),
        (PAIR | {"margin": "much"}, "margin is no finite number: 'much'"),
        (PAIR | {"weight": -1}, "weight is not positive"),
        ({"prompt": Q, "response_0": C, "response_1": R, "better_response_id": 7},
         "better_response_id names neither response: '7', where 0, 1 and tie are known"),
        ({"context": Q, "response1": C, "response2": R, "overall_preference": None},
         "overall_preference is missing or null"),
        ({"prompt": Q, "answers": [{"answer": C, "rank": 1}, {"answer": R, "rank": "last"}]},
         "rank is no finite number"),
    ],
    ids=["calls", "null", "tool", "image", "keys", "cut", "question", "system", "images", "goes on", "margin",
         "weight", "label", "sign", "rank"],
)  # fmt: skip
def test_what_cannot_be_read_is_named_by_file_row_and_cause(source, row, cause):
    file = source(row)
    with pytest.raises(PairsError) as error:
        read(file)
    assert f"{file}: row 1: {cause}" in str(error.value)
    assert "data.invalid=drop" in str(error.value)


def test_a_prompt_that_cannot_be_used_is_an_invalid_row(source):
    def refusal(prompt):
        return "the chat template refuses it" if prompt.startswith("System:") else None

    file = source(PAIR, {"system": "Be brief."} | PAIR)
    with pytest.raises(
        PairsError, match=rf"{file}: row 2: the chat template refuses it\n.*data\.invalid=drop"
    ):
        read(file, refusal=refusal)
    found = read(file, refusal=refusal, invalid="drop")
    assert (len(found.table), found.left_out) == (1, {"the chat template refuses it": 1})


def test_an_unknown_schema_is_told_with_its_columns_and_what_is_read(source):
    with pytest.raises(PairsError, match="no format reads the columns answer, context") as error:
        read(source({"context": Q, "answer": C}))
    for name in ("preference: prompt", "ranking: ", "scores: ", "better_of_two: ", "Rename them to prompt"):
        assert name in str(error.value)


# Labels, scores and ranks


def test_the_label_that_counts_is_configured(source):
    row = {"prompt": Q, "response_0": R, "response_1": C, "better_response_id": 1, "safer_response_id": 0}
    assert texts(read(source(row), DataConfig(label="safer").open()).table) == [(Q, R, C)]
    row.pop("safer_response_id")
    with pytest.raises(PairsError, match=r"data\.label=safer needs .* safer_response_id .*; found "):
        read(source(row), DataConfig(label="safer").open())


def test_a_tie_makes_no_pair_and_is_counted(source):
    rows = [{"question": Q, "response_a": C, "response_b": R, "winner": winner} for winner in ("a", "tie")]
    signed = [
        {"context": Q, "response1": C, "response2": R, "overall_preference": preference}
        for preference in (-1, 0)
    ]
    for found in (read(source(*rows)), read(source(*signed))):
        assert (len(found.table), found.left_out) == (1, {"a tie": 1})


def test_every_two_ranks_are_a_pair_and_the_weights_of_a_prompt_sum_to_one(source):
    row = {"prompt": Q, "answers": [{"answer": text, "rank": rank} for rank, text in enumerate("abc", 1)]}
    table = read(source(row)).table
    assert [both[1:] for both in texts(table)] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert sum(table["weight"]) == pytest.approx(1)
    best = read(source(row), DataConfig(comparisons="best").open()).table
    assert [both[1:] for both in texts(best)] == [("a", "b"), ("a", "c")]
    assert list(best["weight"]) == [0.5, 0.5]


def test_the_chosen_one_stands_against_each_rejected_one(source):
    table = read(source(PAIR | {"rejected": [R, "Hm.", C]})).table
    assert texts(table) == [(Q, C, R), (Q, C, "Hm.")]
    assert list(table["weight"]) == [0.5, 0.5]


def scored(**scores):
    return [{"prompt": Q, "response": text, "helpfulness": score} for text, score in scores.items()]


def test_responses_in_rows_of_their_own_are_paired_by_prompt_and_score(source):
    other = {"prompt": "Why?", "response": "So.", "helpfulness": 3}
    found = read(source(*scored(low=1), other, *scored(high=4, also=4)))
    assert texts(found.table) == [(Q, "high", "low"), (Q, "also", "low")]
    assert found.left_out == {"two responses with equal scores": 1, "the only response to its prompt": 1}


def test_small_differences_are_left_out_and_a_margin_is_asked_for_where_configured(source):
    reads = DataConfig(min_gap=2, gap_as_margin=True).open()
    found = read(source(*scored(a=4, b=3, c=0)), reads)
    assert [both[1:] for both in texts(found.table)] == [("a", "c"), ("b", "c")]
    assert list(found.table["margin"]) == [4, 3]
    assert found.left_out == {"scores that differ by less than data.min_gap": 1}


def test_a_score_may_be_the_mean_of_columns(source):
    rows = [row | {"verbosity": score} for row, score in zip(scored(a=4, b=3), (0, 4), strict=True)]
    reads = DataConfig(score=["helpfulness", "verbosity"]).open()
    assert texts(read(source(*rows), reads).table) == [(Q, "b", "a")]
    with pytest.raises(PairsError, match=r"no column grace, which data\.score names; found helpfulness"):
        read(source(*rows), DataConfig(score="grace").open())


def test_scores_of_chosen_and_rejected_count_where_configured(source):
    rows = [PAIR | {"score_chosen": 7.0, "score_rejected": low} for low in (2.0, 6.5)]
    rows[1]["prompt"] = "Why?"
    assert read(source(*rows)).table.column_names[-1] == "source"
    found = read(source(*rows), DataConfig(min_gap=1, gap_as_margin=True).open())
    assert (list(found.table["margin"]), found.left_out.total()) == ([5.0], 1)


def test_columns_that_are_null_in_all_first_rows_are_read_where_they_are_filled(source):
    rows = [PAIR | {"id": i, "system": None} for i in range(300)] + [
        PAIR | {"id": "z", "system": "Be brief."}
    ]
    assert read(source(*rows)).table[-1]["prompt"] == f"System: Be brief.\n\nHuman: {Q}"


# Margins and weights


def test_margin_and_weight_are_read_where_a_source_has_them(source):
    rows = [PAIR | {"margin": 0.5}, PAIR | {"prompt": "Why?", "margin": None, "weight": "2"}]
    table = read(source(*rows)).table
    assert table["margin"][:] == [0.5, None]
    assert table["weight"][:] == [1.0, 2.0]
    assert "margin" not in read(source(PAIR)).table.column_names


# Files


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_read_whatever_the_file_is_called(tmp_path, name, indent):
    (tmp_path / name).write_text(json.dumps([PAIR, PAIR | {"prompt": "Why?"}], indent=indent))
    assert list(read(str(tmp_path / name)).table["prompt"]) == [Q, "Why?"]


@pytest.mark.parametrize(
    ("options", "name"),
    [({}, "plain"), ({"sep": ";"}, "semicolon"), ({"sep": "\t"}, "tab"), ({"encoding": "utf-16"}, "UTF-16"),
     ({"encoding": "utf-8-sig"}, "byte order mark"), ({"lineterminator": "\r\n"}, "CR LF")],
    ids=lambda one: one if isinstance(one, str) else "",
)  # fmt: skip
def test_a_csv_is_read_as_spreadsheets_write_it(tmp_path, options, name):
    rows = [PAIR | {"prompt": f"{THREE_TURNS}\n\nAssistant:"}, PAIR | {"chosen": 'A "x", or é;'}]
    pd.DataFrame(rows).to_csv(tmp_path / "p.csv", index=False, **options)
    assert texts(read(str(tmp_path / "p.csv")).table) == [(THREE_TURNS, C, R), (Q, 'A "x", or é;', R)]


def test_a_row_of_a_csv_with_too_many_columns_is_named(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,chosen,rejected\na,b,c\na,b,c, d\n")
    with pytest.raises(PairsError, match=r"row 2 has 4 columns and the header 3.*quotes"):
        read(str(tmp_path / "p.csv"))


@pytest.mark.parametrize("name", ["p.jsonl", "p.parquet", "p.csv"])
def test_a_pointer_of_git_lfs_is_told_with_what_to_do(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(PairsError, match="pointer of Git LFS and not the data: fetch them by git lfs pull"):
        read(str(tmp_path / name))


@pytest.mark.parametrize("name", ["why?", "a[1]", "all*"])
@pytest.mark.parametrize("file", ["p.jsonl", "p.parquet", "p.csv"])
def test_a_source_may_lie_in_a_folder_of_any_name(name, file, tmp_path):
    (tmp_path / name).mkdir()
    place = tmp_path / name / file
    rows = pd.DataFrame([PAIR])
    if file == "p.jsonl":
        place.write_text(json.dumps(PAIR))
    elif file == "p.csv":
        rows.to_csv(place, index=False)
    else:
        rows.to_parquet(place)
    for source in (place, tmp_path / name):
        assert texts(read(str(source)).table) == [(Q, C, R)]


def test_json_about_the_data_is_left_alone_in_a_folder_of_data(source, tmp_path):
    source(PAIR, name="folder/p.jsonl")
    (tmp_path / "folder" / "dataset_info.json").write_text('{"features": {}}')
    assert len(read(str(tmp_path / "folder")).table) == 1


# What is said, and configured


def test_one_line_says_how_a_source_is_read_and_names_unused_columns_once(source):
    rows = [PAIR | {"prompt": str(i), "id": i, "margin": 1, "topic": "tea", "stars": 3} for i in range(3)]
    file = source(*rows)
    assert read(file).remarks == [
        f"{file}: read as preference (prompt, chosen, rejected, margin); not used: topic, stars"
    ]


def test_the_files_of_a_folder_may_have_formats_of_their_own(source, tmp_path):
    source(PAIR, name="folder/a.jsonl")
    source({"question": "Why?", "chosen": C, "rejected": R}, name="folder/b.jsonl")
    assert [remark.partition(": read as ")[2] for remark in read(str(tmp_path / "folder")).remarks] == [
        "preference (prompt, chosen, rejected)",
        "preference (question, chosen, rejected)",
    ]


def test_the_remarks_of_all_sources_are_gathered(source, tmp_path):
    config = DataConfig(
        train=source(*(PAIR | {"prompt": f"Why {i}?"} for i in range(40))),
        heldout=source(PAIR, name="h.jsonl"),
    )
    assert [remark.partition(":")[0] for remark in three_sets(config, 0, tmp_path / "sets").remarks] == [
        config.train,
        config.heldout,
    ]


def test_a_format_may_be_forced(source):
    row = PAIR | {"response_0": R, "response_1": "Other.", "better_response_id": 1}
    with pytest.raises(PairsError, match=r"several formats: .*data\.format, of better_of_two, preference"):
        read(source(row))
    assert texts(read(source(row), DataConfig(format="preference").open()).table) == [(Q, C, R)]
    assert texts(read(source(row), DataConfig(format="better_of_two").open()).table) == [(Q, "Other.", R)]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.__name__)
def test_a_forced_format_that_does_not_fit_names_what_it_needs(source, other):
    name = other.__module__.rpartition(".")[2]
    with pytest.raises(PairsError):
        read(source({"context": "a", "reply": "b"}), DataConfig(format=name).open())


class Lines(Format):
    """A format of somebody's own."""

    columns = "text, of three lines"

    @classmethod
    def recognises(cls, columns, rows):
        return "text" in columns

    def used(self, columns):
        return ["text"]

    def pairs(self, rows):
        for row in rows:
            prompt, chosen, rejected = row["text"].split("\n")
            yield Pair(spoken(prompt), chosen, rejected)


def test_a_format_of_somebodys_own_is_named_as_module_and_attribute(source):
    found = read(source({"text": f"{Q}\n{C}\n{R}"}), DataConfig(format=f"{__name__}:Lines").open())
    assert texts(found.table) == [(Q, C, R)]
    assert "read as Lines (text)" in found.remarks[0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"format": "preferences"},
            "data.format: there is no format of pairs 'preferences'.*nearest is preference",
        ),
        ({"label": "nicer"}, "data.label: Input should be 'better' or 'safer'; found 'nicer'"),
        ({"min_gap": -1}, "data.min_gap: .*greater than or equal to 0"),
        ({"format": "preference", "label": "safer"}, "data.label: no such key"),
    ],
    ids=["format", "label", "gap", "key of another format"],
)
def test_wrong_keys_are_told_by_name(keys, said):
    with pytest.raises(ConfigError, match=said):
        validated(ExperimentConfig, {"name": "t", "data": keys}, "t.yaml")
