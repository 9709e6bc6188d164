"""Nothing that a model writes around or instead of a text is in a file of a round; drops are counted."""

import json
import re
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd

from mars_core.generation import GenerationStore, Generator
from mars_core.model.reward_model import RewardModel
from tasks.run.run_config import RunConfig
from tasks.run.run_folder import open_run
from tasks.steps.augment_hard_pairs import augment_hard_pairs
from tasks.steps.rewrite_close_pairs import rewrite_close_pairs

ANSWERS = {
    "I'm sorry, but I can't reword this.": ("refusal", "refusal"),
    "Leider darf ich diesen Text nicht umschreiben.": ("refusal", "refusal"),
    "很抱歉，我不能提供改写。": ("refusal", "refusal"),
    "<|im_start|>assistant\n{text}<|im_end|>": (None, None),
    "{text}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nThank you!": ("markup", "markup"),
    "```text\n{text}\n```": (None, None),
    '{{"paraphrase": "{text}"}}': (None, None),
    '{{"paraphrase": "{text}", "remark': ("markup", "markup"),
    "Here you go: {text} Let me know if you need anything else!": (None, None),
    "Sure!\n\n{text}\n\nI hope this helps.": (None, None),
    "I have rephrased it so that it is shorter. {text}": ("talk about the task", "talk about the task"),
    "1. {text}\n2. Flying high above the fields, larks sing.": ("several versions", "several versions"),
    "Version A: {text}\n\nVersion B: Larks sing.": ("several versions", "several versions"),
    "{text} {text}": ("repetition", "repetition"),
    ("{text} And th", "length"): ("cut off", None),
    ("{text} And th", "content_filter"): ("cut off", "cut off"),
    ("{text}", "refusal"): ("refusal", "refusal"),
}
"""What a server answers, as a text or with its finish reason → why paraphrases and rewrites that say so are
dropped; None where they are kept. A rewrite keeps the sentences before the limit."""
OPEN = {"min_similarity": -1, "relevance_tolerance": 2, "order_tolerance": 1e9}
WRITTEN = {
    "rewrite": "Grey fish of kind {} swim in deep, dark ponds.",
    "paraphrase": "Far above the meadows you hear larks of kind {}.",
}
AGAIN = {
    "rewrite": "Fish of kind {} are dull, I believe.",
    "paraphrase": "Above all fields kind {} is heard.",
}


class Server(ThreadingHTTPServer):
    """Answers the first request about a text in that text's way, and every later one well."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = set()
        self.task = "rewrite"

    def answer(self, message):
        way = int(re.findall(r"kind (\d+)", message)[-1])
        if (self.task, way) in self.asked:
            return AGAIN[self.task].format(way), "stop"
        self.asked.add((self.task, way))
        said = list(ANSWERS)[way]
        text, reason = said if isinstance(said, tuple) else (said, "stop")
        return text.format(text=WRITTEN[self.task].format(way)), reason


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply({"data": [{"id": "m"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text, reason = self.server.answer(body["messages"][-1]["content"])
        choice = {"message": {"content": text}, "finish_reason": reason}
        self.reply({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})

    def reply(self, content):
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_whatever_a_model_writes_around_or_instead_of_a_text_is_in_no_file_of_a_round(
    tmp_path, without_prefect, tiny_decoder
):
    ways = range(len(ANSWERS))
    ids = [f"{way}" for way in ways]
    pairs = pd.DataFrame({
        "pair_id": ids,
        "prompt": "Larks?",
        "chosen": [f"Larks of kind {way} sing while they fly high above the fields." for way in ways],
        "rejected": [f"Larks of kind {way} sing while they fly above the fields." for way in ways],
    })  # fmt: skip
    with serving() as server:
        values = {
            "name": "t", "folder": str(tmp_path), "guards": OPEN, "rewriting": {"first_wave": 1, "tries": 2},
            "augmentation": {"min_characters": 10}, "model": {"max_length": 64, "precision": "float32"},
            "generation": {"backend": "vllm", "model": "m",
                           "options": {"base_url": f"http://127.0.0.1:{server.server_port}/v1"}},
        }  # fmt: skip
        with (
            open_run(RunConfig.model_validate(values)) as run,
            GenerationStore(tmp_path / "store") as store,
        ):
            train = run.write_table("train.parquet", pairs)
            spent = pairs[["pair_id"]].assign(margin=0.0, probability=1 / len(ids), budget=1)
            allocation = run.write_table("allocation.parquet", spent)
            distances = pairs[["pair_id"]].assign(distance=0.0, is_close=True)
            readouts = pairs[["pair_id"]].assign(reward_chosen=0.0, reward_rejected=0.0, margin=0.0)
            model = run.write("model", RewardModel.load(str(tiny_decoder), run.config.model).save)
            generator = Generator(run.config.generation.open(), store)

            rewrites = rewrite_close_pairs(
                run, 1, train, allocation, run.write_table("distances.parquet", distances),
                run.write_table("margins.parquet", readouts), model, generator=generator)  # fmt: skip
            server.task = "paraphrase"
            augment_hard_pairs(run, 1, train, allocation, rewrites, model, generator=generator)
            metrics = run.metrics_of(1)
    rewrites, augmented = (
        pd.read_parquet(tmp_path / f"t/round-1/{name}.parquet") for name in ("rewrites", "augmented")
    )
    paraphrased, rewritten = zip(*ANSWERS.values(), strict=True)
    by_task = {"rewrite": rewritten, "paraphrase": paraphrased}
    good = {
        task: [(AGAIN if reason else WRITTEN)[task].format(way) for way, reason in enumerate(reasons)]
        for task, reasons in by_task.items()
    }
    assert list(rewrites["rejected"]) == good["rewrite"]
    assert list(rewrites["chosen"]) == list(pairs["chosen"])
    for row in augmented.itertuples():
        way = int(row.parent_id)
        texts = {
            (pairs["chosen"][way], good["paraphrase"][way]),
            (good["paraphrase"][way], good["rewrite"][way]),
        }
        assert (row.chosen, row.rejected) in texts
    assert list(augmented["parent_id"]) == ids
    for section, reasons in (("rewriting", rewritten), ("augmentation", paraphrased)):
        counted = {name: n for name, n in metrics.items() if name.startswith(f"{section}/dropped/")}
        expected = Counter(reason for reason in reasons if reason)
        assert counted == {f"{section}/dropped/{reason}": n for reason, n in expected.items()}
