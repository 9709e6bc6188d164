"""Every test runs offline, quietly, and with a cache of data sets that ends with it."""

import base64
import contextlib
import gc
import gzip
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
def bottleneck(tmp_path_factory, headless):
    """Folder of the tiny decoder with an information bottleneck of two dimensions before its reward."""
    from mars_core.model.reward_model import ModelConfig, RewardModel
    from mars_core.objectives.objective import ObjectiveConfig

    folder = tmp_path_factory.mktemp("bottleneck")
    objective = ObjectiveConfig(name="information_bottleneck", dimensions=2)
    RewardModel.load(str(headless), ModelConfig(precision="float32"), objective).save(folder)
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


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory):
    """Folder of a sentence embedder with a random vector for each token: texts are close that share many."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    from mars_core.data.samples import preferences

    folder = tmp_path_factory.mktemp("tiny-embedder")
    bpe = _byte_pairs((pair["chosen"] for pair in preferences()), 2000, [END])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SentenceTransformer(modules=[StaticEmbedding(bpe, embedding_dim=64)], device="cpu").save(str(folder))
    return folder


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


class Hub:
    """A stand-in of the hub's API on this machine, as far as repositories are made, written and read.

    It takes every file into a commit itself, where the hub wants large ones sent apart, and keeps all commits
    in memory. Who has the token `writer` may write to what is `ours`.
    """

    def __init__(self):
        self.commits = {}
        """(kind, repository) → revision → file → bytes."""
        self.private = {}
        self.spoil = lambda files: files
        """What the hub does to a commit's files."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
        self.server.hub = self
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, kind, repository, files):
        """A commit that adds files."""
        commits = self.commits.setdefault((kind, repository), {})
        content = {**(list(commits.values())[-1] if commits else {}), **self.spoil(files)}
        revision = hashlib.sha1(repr(sorted(content.items())).encode()).hexdigest()
        commits.pop(revision, None)
        commits[revision] = content
        return revision


class HubHandler(BaseHTTPRequestHandler):
    """What the stand-in answers."""

    def do_HEAD(self):
        self.reply(*self.found(), body=False)

    def do_GET(self):
        self.reply(*self.found())

    def do_POST(self):
        given = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            self.reply(200, {"warnings": [], "errors": []})
        elif self.headers.get("Authorization") != "Bearer writer":
            self.reply(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            asked = json.loads(given)
            self.create(asked, (f"{asked['type']}s", f"{asked['organization']}/{asked['name']}"))
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(given)["files"]
            ]
            self.reply(200, {"files": files})
        else:
            _, _, kind, owner, name, *_ = self.path.split("/")
            lines = [json.loads(line) for line in given.splitlines() if line.strip()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            revision = self.server.hub.add(kind, f"{owner}/{name}", files)
            about = {
                "commitOid": revision,
                "commitUrl": f"{self.server.hub.address}/{owner}/{name}/commit/{revision}",
            }
            self.reply(200, about)

    def create(self, asked, place):
        if asked["organization"] != "ours":
            self.reply(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif place in self.server.hub.commits:
            self.reply(409, {"error": "You already created this model repo"})
        else:
            self.server.hub.commits[place], self.server.hub.private[place[1]] = (
                {},
                asked.get("visibility") == "private",
            )
            self.server.hub.add(*place, {".gitattributes": b""})
            self.reply(200, {"url": f"{self.server.hub.address}/{place[1]}"})

    def found(self):
        parts = self.path.partition("?")[0].strip("/").split("/")
        listed = parts[0] == "api"
        if listed:
            kind, owner, name, _, revision, *_ = [*parts[1:], "", ""]
        else:
            kind = parts.pop(0) if parts[0] == "datasets" else "models"
            owner, name, _, revision, *rest = parts
        commits = self.server.hub.commits.get((kind, f"{owner}/{name}"))
        if not commits:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        revision = revision if revision in commits else list(commits)[-1]
        files = commits[revision]
        if listed and "tree" in parts:
            return 200, [
                {"type": "file", "oid": "", "path": path, "size": len(content)}
                for path, content in files.items()
            ]
        if listed:
            siblings = [{"rfilename": path} for path in files]
            return 200, {"id": f"{owner}/{name}", "sha": revision, "siblings": siblings}
        if "/".join(rest) not in files:
            return 404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": revision}
        content = files["/".join(rest)]
        return 200, content, {"ETag": hashlib.sha1(content).hexdigest(), "X-Repo-Commit": revision}

    def reply(self, status, content, headers=None, body=True):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """The stand-in of the hub, which this process takes for the hub, with a token that may write to ours/."""
    import huggingface_hub

    made = Hub()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    monkeypatch.setenv("HF_TOKEN", "writer")
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


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
    monkeypatch.setattr("tasks.run.prefect_api.has_flow_run", lambda: True)


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
