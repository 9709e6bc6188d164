"""Checkpoints on the hub, by the hub's own client in another process, which asks a server of this one."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import peft
import pytest
import torch
import transformers

from mars_core.model.reward_model import ModelConfig, RewardModel

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXTS = ["Who?", "What is a lark?"], ["I.", "A small songbird."]
SCORE = """
import json, sys
from mars_core.errors import ModelError
from mars_core.model.loading import has_trained_head
from mars_core.model.reward_model import ModelConfig, RewardModel

config, found = ModelConfig(precision="float32"), {}
for reference in sys.argv[2:]:
    try:
        assert has_trained_head(reference, config)
        found[reference] = RewardModel.load(reference, config).score(*json.loads(sys.argv[1])).tolist()
    except ModelError as error:
        found[reference] = str(error)
print(json.dumps(found))
"""


class Handler(BaseHTTPRequestHandler):
    """Lists and gives the files in `server.root`/OWNER/NAME, as the hub's API does."""

    def do_HEAD(self):
        self.reply(*self.found())

    def do_GET(self):
        self.wfile.write(self.reply(*self.found()))

    def found(self):
        parts = self.path.partition("?")[0].strip("/").split("/")
        listed = parts[:2] == ["api", "models"]
        owner, name, _, _, *rest = parts[2:] if listed else parts
        folder = self.server.root / owner / name
        if not folder.is_dir():
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        if listed:
            files = [file for file in folder.joinpath(*rest).rglob("*") if file.is_file()]
            about = [
                {"type": "file", "oid": "", "path": file.name, "size": file.stat().st_size} for file in files
            ]
            return 200, json.dumps(about).encode(), {}
        file = folder.joinpath(*rest)
        if not file.is_file():
            return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
        content = file.read_bytes()
        return 200, content, {"ETag": hashlib.sha1(content).hexdigest(), "X-Repo-Commit": COMMIT}

    def reply(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        return content

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory, headless):
    """Files of a base, and of adapters of it with the base's commit and without."""
    root = tmp_path_factory.mktemp("hub")
    transformers.AutoModel.from_pretrained(headless).save_pretrained(root / "team/base")
    transformers.AutoTokenizer.from_pretrained(headless).save_pretrained(root / "team/base")
    network = transformers.AutoModelForSequenceClassification.from_pretrained(headless, num_labels=1)
    lora = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"])
    adapted = peft.get_peft_model(network, lora)
    torch.manual_seed(1)
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.3)
    for name, base, revision in (
        ("pinned", "team/base", COMMIT),
        ("bare", "team/base", None),
        ("here", headless, None),
    ):
        adapted.save_pretrained(root / "team" / name)
        settings = root / "team" / name / "adapter_config.json"
        about = json.loads(settings.read_text()) | {
            "base_model_name_or_path": str(base),
            "revision": revision,
        }
        settings.write_text(json.dumps(about))
    return root


@pytest.fixture(scope="module")
def found(root, tmp_path_factory):
    """The rewards of each reference, or the error that it gives."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.root = root
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path_factory.mktemp("cache")),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }  # fmt: skip
    references = [f"team/{name}@{COMMIT}" for name in ("pinned", "bare", "absent")]
    try:
        said = subprocess.run(
            [sys.executable, "-c", SCORE, json.dumps(TEXTS), *references, str(root / "team/bare")],
            env=os.environ | hub, capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    return json.loads(said.stdout)


def test_adapters_and_their_base_are_read_from_the_hub_at_their_commits(found, root):
    here = RewardModel.load(str(root / "team/here"), ModelConfig(precision="float32")).score(*TEXTS)
    np.testing.assert_allclose(found[f"team/pinned@{COMMIT}"], here, atol=1e-6)


def test_adapters_here_get_their_bases_commit_where_they_keep_it(found, root):
    said = found[str(root / "team/bare")]
    assert f'"base_model_name_or_path" in {root / "team/bare/adapter_config.json"}' in said
    assert 'If it is on the hub, set "revision" there' in said


def test_adapters_on_the_hub_are_copied_before_their_base_is_named(found):
    said = found[f"team/bare@{COMMIT}"]
    assert f"hf download team/bare --revision {COMMIT} --local-dir bare" in said
    assert 'If it is on the hub, set "revision" there' in said


def test_a_name_that_the_hub_does_not_know_is_told(found):
    assert "team/absent" in found[f"team/absent@{COMMIT}"]
    assert "cannot be fetched from the hub" in found[f"team/absent@{COMMIT}"]
