"""The cards of a model and of a data set of synthetic pairs, as the hub shows them: what a reader must know
before using them, and nothing that was not measured or written down."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from huggingface_hub import DatasetCardData, ModelCardData

from mars_core.report.wording import table

TAG = "mars"
PAPER = "[arXiv 2602.17658](https://arxiv.org/abs/2602.17658)"
NOT_STATED = "not stated"
LIMITS = (
    "A reward says which of two responses to one prompt the training pairs would prefer. It has no unit, and "
    "rewards of different prompts are not comparable.",
    "What the pairs reward by accident, such as length, the model may reward too; and optimising against it "
    "finds its mistakes.",
    "One run with one seed: the intervals speak of other pairs, not of other seeds.",
)
COLUMNS = (
    "`prompt`, `chosen` and `rejected` are the pair, and `parent_id` is its original's id. `prompt_variant`, "
    "`chosen_variant` and `rejected_variant` number the paraphrases of a text; 0 is the text itself. "
    "`margin_before` and `margin_after` are the pair's reward margins before and after the reward model was "
    "trained on it."
)


@dataclass(frozen=True)
class Data:
    """A source of preference pairs."""

    what: str
    """What the pairs were for: training, validation, held out."""
    source: str
    """Its name, as the configuration has it."""
    pairs: str
    """How many were used."""
    licence: str = NOT_STATED
    """As its publisher says."""


@dataclass(frozen=True)
class Model:
    """What a model's card says."""

    name: str
    rendering: str
    """How texts are rendered, as the end of a sentence."""
    max_length: int
    objective: str
    chat_template: bool
    is_plain: bool
    """Whether the reward is the checkpoint's one output."""
    backbone: str | None = None
    """Its name, as the configuration has it."""
    backbone_licence: str = NOT_STATED
    data: Sequence[Data] = ()
    synthetic: str = ""
    """A sentence on the synthetic pairs that it was trained on."""
    method: str | None = None
    metrics: Sequence[Sequence[str]] = ()
    """Rows of name, value with its interval, and what it is of."""
    notes: Sequence[str] = ()
    """What a reader of the metrics has to know."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """Without secrets."""
    licence: str | None = None


@dataclass(frozen=True)
class SyntheticPairs:
    """What the card of synthetic pairs says."""

    name: str
    pairs: int
    generator: str
    """What wrote them, with its licence."""
    data: Sequence[Data]
    method: str
    spending: Sequence[Sequence[str]]
    """Rows of what was asked for, made and dropped, and how much."""
    dropped: str
    """The share of written texts that guards dropped, in words."""
    examples: Sequence[Mapping[str, str]]
    """Some pairs, with prompt, chosen and rejected as cells of a table."""
    configuration: Mapping[str, Any]
    licence: str | None = None


def model_card(model: Model) -> str:
    """The card of a reward model, with the metadata that the hub reads."""
    about = ModelCardData(
        license=model.licence,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=[TAG, "reward-model"],
        base_model=_on_hub(model.backbone),
        datasets=[name for one in model.data if (name := _on_hub(one.source))] or None,
    )
    parts = [
        _head(about.to_yaml()),
        f"# {model.name}",
        f"A reward model r(x, y), trained with the objective `{model.objective}`"
        + (f", from `{model.backbone}` (licence: {model.backbone_licence})." if model.backbone else "."),
        "## How texts are rendered",
        f"Texts are rendered {model.rendering}, at most {model.max_length} tokens: a longer text loses the "
        "beginning of its prompt. Rendered in another way, the same text gets another reward.",
        "## How to load it",
        _loading(model),
        "## Data",
        _data_table(model.data) if model.data else "The checkpoint does not say what it was trained on.",
    ]
    parts += [model.synthetic] if model.synthetic else []
    if model.method:
        parts += ["## Method", model.method]
    parts += ["## Metrics"]
    if model.metrics:
        parts += [table(["", "value [95% interval]", "of"], model.metrics, "---")]
    parts += ["None were recorded with it."] if not model.metrics else model.notes
    parts += ["## Limits", "\n".join(f"- {limit}" for limit in LIMITS)]
    return "\n\n".join([*parts, *_configuration(model.configuration)]) + "\n"


def pairs_card(pairs: SyntheticPairs) -> str:
    """The card of a data set of synthetic pairs, with the metadata that the hub reads."""
    about = DatasetCardData(
        license=pairs.licence,
        tags=[TAG, "preference-pairs", "synthetic"],
        task_categories=["text-classification"],
        source_datasets=[f"extended|{name}" for one in pairs.data if (name := _on_hub(one.source))] or None,
    )
    examples = [[example[name] for name in ("prompt", "chosen", "rejected")] for example in pairs.examples]
    parts = [
        _head(about.to_yaml()),
        f"# Synthetic pairs of {pairs.name}",
        f"{pairs.pairs:,} preference pairs, made of those of the source below by paraphrasing and "
        "rewriting. No person has judged them.",
        "## Sources and licences",
        _data_table(pairs.data),
        f"Written by {pairs.generator}. The terms of the sources and of the generator may both bind whoever "
        "uses these texts.",
        "## Columns",
        COLUMNS,
        "## Method",
        pairs.method,
        "## What was made, and what was dropped",
        pairs.dropped,
        table(["", "texts"], pairs.spending) if pairs.spending else "",
        "## Examples",
        table(["prompt", "chosen", "rejected"], examples, "---"),
        "## Limits",
        "A paraphrase that passed the guards may still have changed its meaning, and a rewritten response "
        "may deserve its label no more. The guards measure similarity, overlap and length, not truth.",
    ]
    return "\n\n".join([part for part in parts if part] + _configuration(pairs.configuration)) + "\n"


def _head(metadata: str) -> str:
    return f"---\n{metadata.strip()}\n---"


def _on_hub(name: str | None) -> str | None:
    """OWNER/NAME, where a name says that it is on the hub: NAME@REVISION."""
    bare = (name or "").partition("@")[0]
    is_named = bool(name) and "@" in str(name) and "://" not in str(name)
    return "/".join(bare.split("/")[:2]) if is_named and not bare.startswith((".", "/", "~")) else None


def _data_table(data: Sequence[Data]) -> str:
    rows = [[one.what, one.pairs, f"`{one.source}`", one.licence] for one in data]
    return table(["", "pairs", "source", "licence"], rows, "---")


def _loading(model: Model) -> str:
    """Code that gives the same reward as the project does."""
    if not model.is_plain:
        return (
            f"Under the objective `{model.objective}` the reward is not the checkpoint's one output: load it "
            "with MARS, `RewardModel.load(FOLDER, ModelConfig())`, or score files with "
            f"`mars score`; `objective.json` has the objective."
        )
    text = (
        'messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]\n'
        'ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)'
        if model.chat_template
        else 'text = f"Human: {prompt}\\n\\nAssistant: {response}"\n'
        'if tokenizer("a").input_ids == tokenizer("a", add_special_tokens=False).input_ids:\n'
        "    text += tokenizer.eos_token  # a tokenizer that adds no special tokens\n"
        'ids = tokenizer(text, return_tensors="pt")'
    )
    vllm = (
        ", and vLLM serves it by `--runner pooling --convert classify "
        "--pooler-config '{\"use_activation\": false}'`"
    )
    if "sentence pairs" in model.rendering:
        text, vllm = 'ids = tokenizer(prompt, response, return_tensors="pt")', ""
    return (
        "```python\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        "tokenizer = AutoTokenizer.from_pretrained(FOLDER)\n"
        "model = AutoModelForSequenceClassification.from_pretrained(FOLDER).eval()\n"
        f"{text}\n"
        "reward = model(**ids).logits.item()\n"
        "```\n\n"
        "`FOLDER` is the name of this repository, or a folder that holds it. TRL takes it as a reward model"
        + vllm
        + ". A precision below float32 changes small margins, and may change their signs."
    )


def _configuration(values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    shown = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True).strip()
    return ["## Configuration", f"```yaml\n{shown}\n```"]
