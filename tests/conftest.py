"""Every test runs offline, quietly, and with a cache of data sets that ends with it."""

import os
import tempfile

import hypothesis
import pytest

# The libraries read these on import, which test modules do after this one; child processes inherit them.
_CACHE = tempfile.TemporaryDirectory(prefix="mars-tests-")
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_CACHE": _CACHE.name,
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",  # two test processes share the cores; more threads would wait for each other
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_HOME": f"{_CACHE.name}/prefect",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

hypothesis.settings.register_profile("mars", deadline=None, derandomize=True)
hypothesis.settings.load_profile("mars")

END, BEGIN, PARTS = "<|end|>", "<|begin|>", ["<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message.role }}|>\n{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}"
)
SENTENCES = [
    "Human: What is a lark?\n\nAssistant: A small songbird that sings in flight.",
    "Human: Name a river in France.\n\nAssistant: The Loire is the longest river in France.",
    "System: Answer in one sentence.\n\nHuman: Why is the sky blue?\n\nAssistant: Air scatters blue light.",
]


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory):
    """Folder of a random Llama reward model whose tokenizer adds no special tokens and has no pad token."""
    return _save_tiny_llama(tmp_path_factory.mktemp("tiny-decoder"))


@pytest.fixture(scope="session")
def tiny_chat_decoder(tmp_path_factory):
    """The same with a beginning-of-sequence token and a chat template that writes it."""
    return _save_tiny_llama(
        tmp_path_factory.mktemp("tiny-chat-decoder"), bos_token=BEGIN, chat_template=TEMPLATE
    )


def _save_tiny_llama(folder, **special):
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END, BEGIN, *PARTS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    if special:
        begin = (BEGIN, bpe.token_to_id(BEGIN))
        bpe.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, **special)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        num_labels=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.LlamaForSequenceClassification(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prefect_server():
    """The Prefect server, with a store of its own, that flows use from the first test that asks for it on."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # Without heartbeats a flow need not wait for the thread that sends them, which takes it a second.
    with (
        prefect_test_harness(server_startup_timeout=90),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture
def in_flow(prefect_server):
    """Calls a function without arguments inside a Prefect flow; its result."""
    from prefect import flow

    def call(function):
        @flow(name="tiny", persist_result=False)
        def tiny():
            return function()

        return tiny()

    return call
