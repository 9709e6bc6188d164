import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from mars_core.errors import ModelError
from mars_core.generation import GenerationConfig, GenerationError, Request
from mars_core.generation.instructions import ROLES

TEXTS = ["Larks sing in flight, and at dawn.", "A lark sings.", "Larks nest on the ground in spring."]


def tokenizer(**special):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(TEXTS, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>", **special
    )


@pytest.fixture(scope="module")
def paraphraser(tmp_path_factory):
    """Folder of a random T5 of two layers that reads at most 64 tokens."""
    folder = tmp_path_factory.mktemp("t5")
    words = tokenizer(model_max_length=64)
    config = transformers.T5Config(
        vocab_size=len(words), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def backend(folder, options=None, **settings):
    short = {
        role: {"max_tokens": 8} for role in ("paraphrase_prompt", "paraphrase_chosen", "rewrite_rejected")
    }
    named = {"backend": "transformers", "model": str(folder), "options": options or {}}
    return GenerationConfig.model_validate(named | short | settings).open()


def paraphrase(text=TEXTS[0], n=3, draw=0):
    return Request("paraphrase_chosen", "What is a lark?", text, "A fish.", n, draw)


def test_beams_give_a_text_as_many_distinct_paraphrases_as_are_asked_for(paraphraser):
    requests = [paraphrase(text) for text in TEXTS]
    answers = dict(backend(paraphraser, {"batch_tokens": 400}).answers(requests))
    assert sorted(answers) == [0, 1, 2]
    for answer in answers.values():
        assert len(set(answer.texts)) == len(answer.finish_reasons) == 3
        assert answer.error is None
    asked = "paraphrase: " + TEXTS[1]
    assert answers[1].messages == ({"role": "user", "content": asked},)
    assert answers[1].prompt_tokens == len(tokenizer()(asked).input_ids)
    assert 0 < answers[1].completion_tokens <= 3 * 8


def test_a_text_has_the_same_beams_in_any_batch_and_other_texts_in_a_further_draw(paraphraser):
    generating = backend(paraphraser)
    together = dict(generating.answers([paraphrase(text) for text in TEXTS]))
    ((_, alone),) = generating.answers([paraphrase(TEXTS[1])])
    ((_, further),) = generating.answers([paraphrase(TEXTS[1], draw=1)])
    assert alone == together[1] or alone.texts == together[1].texts
    assert set(further.texts) != set(alone.texts)
    assert further.key != alone.key


def test_a_seq2seq_paraphraser_refuses_to_rewrite(paraphraser):
    with pytest.raises(GenerationError, match=r"takes no instructions: set rewriting\.enabled=false"):
        list(backend(paraphraser).answers([Request("rewrite_rejected", "p", "c", "r", 1)]))


def test_a_text_that_the_model_cannot_read_as_a_whole_costs_its_request_alone(paraphraser):
    answers = dict(backend(paraphraser).answers([paraphrase("lark " * 100), paraphrase("A lark sings.")]))
    assert answers[0].error.startswith("too long: ")
    assert answers[0].refused
    assert answers[1].error is None


def test_a_chat_model_is_asked_by_its_template_and_samples(tiny_chat_model):
    requests = [paraphrase(TEXTS[0]), Request("rewrite_rejected", "What is a lark?", TEXTS[1], "A fish.", 2)]
    answers = dict(backend(tiny_chat_model).answers(requests))
    assert [len(answers[index].texts) for index in (0, 1)] == [3, 2]
    assert [message["role"] for message in answers[1].messages] == ["system", "user"]
    assert answers[0].sampling["do_sample"]
    for answer in answers.values():
        assert set(answer.finish_reasons) <= {"stop", "length"}


def test_requests_that_are_added_while_answers_are_taken_are_answered_too(tiny_chat_model):
    asked = [paraphrase(n=1)]
    found = []
    for index, answer in backend(tiny_chat_model).answers(asked):
        found.append((index, answer.key))
        if len(asked) < 3:
            asked.append(paraphrase(n=1, draw=len(asked)))
    assert found == [(index, backend(tiny_chat_model).key(request)) for index, request in enumerate(asked)]


def test_a_reply_whose_beginning_the_prompts_hold_goes_on_from_it(tiny_chat_model, tmp_path):
    for role in ROLES:
        text = f"---\nSay it otherwise: ${role.partition('_')[2]}\n---\nOtherwise, larks"
        (tmp_path / f"{role}.txt").write_text(text)
    ((_, answer),) = backend(tiny_chat_model, prompts=str(tmp_path)).answers([paraphrase(n=1)])
    read = f"user: Say it otherwise: {TEXTS[0]}\nassistant: Otherwise, larks"
    words = transformers.AutoTokenizer.from_pretrained(tiny_chat_model)
    assert answer.prompt_tokens == len(words(read, add_special_tokens=False).input_ids)


def test_a_sample_that_did_not_end_is_marked_as_cut_off(tiny_chat_model):
    ((_, answer),) = backend(tiny_chat_model, paraphrase_chosen={"max_tokens": 1}).answers([paraphrase(n=5)])
    ends = [reason == "stop" for reason in answer.finish_reasons]
    assert ends == [text == "" for text in answer.texts]
    assert answer.completion_tokens == 5


def test_a_base_model_is_an_error_that_says_so(tiny_chat_model, tmp_path):
    transformers.LlamaForCausalLM.from_pretrained(tiny_chat_model).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(GenerationError, match="no chat template"):
        list(backend(tmp_path).answers([paraphrase()]))


def test_weights_that_are_no_safetensors_are_not_loaded(tiny_chat_model, tmp_path):
    model = transformers.LlamaForCausalLM.from_pretrained(tiny_chat_model)
    model.config.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny_chat_model).save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(GenerationError, match="cannot be loaded"):
        list(backend(tmp_path).answers([paraphrase()]))


def test_a_model_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="no such checkpoint folder"):
        backend(tmp_path / "none")


def test_the_key_holds_the_weights_and_what_is_asked_but_not_how_fast(tiny_chat_model, paraphraser, tmp_path):
    for file in tiny_chat_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())

    def key(folder=tmp_path, request=None, options=None, **settings):
        return backend(folder, options, **settings).key(request or paraphrase())

    before = key()
    assert key(options={"batch_tokens": 1, "device": "cpu"}) == before
    others = {
        key(request=paraphrase(draw=1)),
        key(options={"prefix": "reword: "}),
        key(paraphrase_chosen={"top_p": 0.5}),
    }
    transformers.LlamaForCausalLM.from_pretrained(tmp_path).half().save_pretrained(tmp_path)
    assert len({before, key(), *others}) == 5
