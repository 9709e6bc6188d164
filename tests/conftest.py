"""Every test runs offline, quietly, and with a cache of data sets that ends with it."""

import contextlib
import gc
import gzip
import json
import os
import shutil
import sqlite3
import tempfile

import hypothesis
import pytest
from filelock import FileLock

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files are distributed whole, and the two that look at the same finished run go to one test process."""
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return file.replace("flows/test_refine.py", "flows/test_cli.py")

    return Files(config, log)


def pytest_collection_finish():
    """What is there once all tests are imported is no garbage; each full collection would look at it."""
    gc.collect()
    gc.freeze()


END, BEGIN, PARTS = "<|end|>", "<|begin|>", ["<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message.role }}|>\n{{ message.content }}{{ eos_token }}\n"
    "{% endfor %}"
)
ASKING = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
SENTENCES = [
    "Human: What is a lark?\n\nAssistant: A small songbird that sings in flight.",
    "Human: Name a river in France.\n\nAssistant: The Loire is the longest river in France.",
    "System: Answer in one sentence.\n\nHuman: Why is the sky blue?\n\nAssistant: Air scatters blue light.",
]


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory):
    """Folder of a random Llama reward model whose tokenizer adds no special tokens and has no pad token."""
    return _save_reward_model(tmp_path_factory.mktemp("tiny-decoder"))


@pytest.fixture(scope="session")
def headless(tmp_path_factory, tiny_decoder):
    """Folder of the tiny decoder without its head."""
    import transformers

    folder = tmp_path_factory.mktemp("headless")
    transformers.AutoModel.from_pretrained(tiny_decoder).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_decoder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_chat_decoder(tmp_path_factory):
    """The same with a beginning-of-sequence token and a chat template that writes it."""
    return _save_reward_model(
        tmp_path_factory.mktemp("tiny-chat-decoder"), bos_token=BEGIN, chat_template=TEMPLATE
    )


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory):
    """Folder of a random Llama that writes, with a chat template; vLLM, too, can serve it."""
    from mars_core.data.samples import preferences

    return _save_llama(
        tmp_path_factory.mktemp("tiny-chat-model"),
        "LlamaForCausalLM",
        _byte_pairs((pair["chosen"] for pair in preferences()), 2000, [END]),
        {"chat_template": ASKING},
        hidden_size=128,
        intermediate_size=256,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
    )


@pytest.fixture
def write(tmp_path):
    """Write rows to a file in the format that its name says."""
    import pandas

    def write_rows(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pandas.DataFrame(rows).to_parquet(path)
        elif name.endswith(".csv"):
            pandas.DataFrame(rows).to_csv(path, index=False)
        else:
            opened = gzip.open if name.endswith(".gz") else open
            with opened(path, "wt", encoding="utf-8") as lines:
                if ".jsonl" in name:
                    lines.writelines(json.dumps(row) + "\n" for row in rows)
                else:
                    json.dump(rows, lines)
        return str(path)

    return write_rows


class Day:
    """A day on which others deliver preference pairs into a folder, with good and bad intent and luck."""

    def __init__(self, folder):
        self.folder = folder
        self.limits = {"bytes": 2**26, "memory_bytes": 2**29}
        self.ends = ["Promoted", "Refused", "Promoted", "Refused", "Nothing new"]
        """How the looks at the folder end: after the morning, three after noon, and in the evening."""
        self.became = [
            ("again.jsonl", "known"),
            ("exchanged.jsonl", "quarantined"),
            ("half.jsonl", "quarantined"),
            ("half.jsonl", "waiting"),
            ("huge.jsonl.gz", "quarantined"),
            ("morning.jsonl", "trusted"),
            ("noon.jsonl", "trusted"),
            ("poisoned.jsonl", "refused"),
            ("replaced.jsonl", "trusted"),
            ("replaced.jsonl", "waiting"),
        ]
        """What became of each delivery by then; nothing of a link."""

    def morning(self):
        self._deliver("morning.jsonl", self._pairs(0, 120))

    def noon(self, secret):
        """The same again with small changes, labels exchanged, poison in part, too much, half a file, a link
        to a secret, and good pairs."""
        known = self._pairs(0, 120)
        self._deliver("again.jsonl", [{name: f" {text}!" for name, text in row.items()} for row in known])
        changed = [row | {"prompt": row["prompt"].replace(" ", "  ")} for row in known]
        self._deliver("exchanged.jsonl", self._exchanged(changed))
        self._deliver("poisoned.jsonl", self._exchanged(self._pairs(130, 470)) + self._pairs(470, 490))
        (self.folder / "huge.jsonl.gz").write_bytes(gzip.compress(b" " * 2**27))
        (self.folder / "half.jsonl").write_text(self._text(self._pairs(500, 520))[:-40])
        (self.folder / "link.jsonl").symlink_to(secret)
        self._deliver("noon.jsonl", self._pairs(600, 660))
        self._deliver("replaced.jsonl", self._pairs(700, 710))

    def evening(self):
        """The half file is completed, and another one renamed over what was delivered, as old as that."""
        self._deliver("half.jsonl", self._pairs(500, 520))
        replaced = self.folder / "replaced.jsonl"
        self._deliver(".beside", self._pairs(720, 730))
        os.utime(self.folder / ".beside", ns=(replaced.stat().st_mtime_ns,) * 2)
        (self.folder / ".beside").replace(replaced)

    def _deliver(self, name, rows):
        (self.folder / name).write_text(self._text(rows))

    @staticmethod
    def _text(rows):
        return "".join(json.dumps(row) + "\n" for row in rows)

    @staticmethod
    def _pairs(first, end):
        """Pairs that are easily learned; their numbers are mixed, so that no model tells deliveries apart."""
        return [
            {
                "prompt": f"What is thing number {n}?",
                "chosen": f"It is a small songbird that sings in flight, the {n}th of its kind.",
                "rejected": f"Sorry, nobody here knows anything about thing {n}.",
            }
            for n in (10_000 + number * 7_919 % 90_001 for number in range(first, end))
        ]

    @staticmethod
    def _exchanged(rows):
        return [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]


@pytest.fixture(scope="session")
def day():
    """Begin a day of deliveries into a folder."""
    return Day


def _save_reward_model(folder, **special):
    from tokenizers import processors

    bpe = _byte_pairs(SENTENCES, 400, [END, BEGIN, *PARTS])
    if special:
        begin = (BEGIN, bpe.token_to_id(BEGIN))
        bpe.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    return _save_llama(
        folder,
        "LlamaForSequenceClassification",
        bpe,
        special,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        num_labels=1,
    )


def _byte_pairs(texts, vocab_size, special_tokens):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def _save_llama(folder, kind, bpe, special, **settings):
    import torch
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, **special)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(transformers, kind)(config)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """The folder that all test processes of a session have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def mlflow_store(shared_folder):
    """A database with MLflow's tables to copy; making them takes it seconds."""
    from mlflow import MlflowClient

    store = shared_folder / "mlflow.db"
    with FileLock(f"{store}.lock"):
        if not store.exists():
            MlflowClient(f"sqlite:///{store}").search_experiments()
    return store


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory, shared_folder):
    """The Prefect server, with a store of its own, that flows use from the first test that asks for it on.

    Prefect's tables, which take seconds to make, are made by the test process that starts its server first:
    a database to copy.
    """
    from prefect.events.clients import NullEventsClient
    from prefect.events.worker import EventsWorker
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    tables, folder = shared_folder / "prefect.db", tmp_path_factory.mktemp("prefect")
    store = folder / "prefect-test.db"
    with contextlib.ExitStack() as running:
        with FileLock(f"{tables}.lock"), pytest.MonkeyPatch.context() as patch:
            patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(folder))
            if tables.exists():
                shutil.copy(tables, store)
            running.enter_context(prefect_test_harness(server_startup_timeout=300))
            if not tables.exists():
                with (
                    contextlib.closing(sqlite3.connect(store)) as made,
                    contextlib.closing(sqlite3.connect(tables)) as copy,
                ):
                    made.backup(copy)
        # Without heartbeats a flow need not wait for the thread that sends them, which takes it a second.
        # Events of tasks and logs cost the server more than all else that flows ask of it.
        EventsWorker.set_client_override(NullEventsClient)
        quiet = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_TO_API_ENABLED: False}
        running.enter_context(temporary_settings(quiet))
        yield tables


@pytest.fixture
def without_prefect(monkeypatch):
    """Steps and other tasks are called as the functions that they are: no flow, and no server."""
    monkeypatch.setattr("prefect.Task.__call__", lambda task, *args, **kwargs: task.fn(*args, **kwargs))


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
