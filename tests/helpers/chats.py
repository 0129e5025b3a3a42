"""Chats of published models: templates, and tokenizers that are made as theirs are.

The templates are written for these tests, after what the published ones do. `{% generation %}` marks answers, so that
transformers can say which tokens those are. A folder holds no such marks, as most published templates have none.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "What colour is it?",
    "It is the colour of the picture.",
    "red green blue yellow",
    "user assistant system",
    "USER: ASSISTANT: [INST] [/INST]",
] * 4
BYTES = [f"<0x{number:02X}>" for number in range(256)]

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{% generation %}{{ message['content'] + eos_token }}"
    "{% endgeneration %}{{ ' ' }}{% endif %}{% endfor %}"
)
VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{% set talk = messages[1:] %}"
    "{% set system = messages[0]['content'] | trim %}"
    "{% else %}{% set talk = messages %}{% set system = 'A chat between a user and an assistant.' %}{% endif %}"
    "{{ bos_token + system }}{% for message in talk %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ ' USER: ' + message['content'].strip() }}{% else %}{{ ' ASSISTANT:' }}{% generation %}"
    "{{ ' ' + message['content'].strip() + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}"
    "{{ eos_token }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system prompts') }}{% endif %}"
    "{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ '<start_of_turn>user\n' + message['content'] | trim + '<end_of_turn>\n' }}{% else %}"
    "{{ '<start_of_turn>model\n' }}"
    "{% generation %}{{ message['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{% set before = '' %}{% set talk = messages %}{% if messages[0]['role'] == 'system' %}"
    "{% set before = messages[0]['content'][0]['text'] + '\n\n' %}{% set talk = messages[1:] %}{% endif %}"
    "{% for message in talk %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
    "{{ '<start_of_turn>user\n' + (before if loop.first else '') }}{% for part in message['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% else %}{{ '<start_of_turn>model\n' }}"
    "{% generation %}{% for part in message['content'] %}{{ part['text'] | trim }}{% endfor %}"
    "{{ '<end_of_turn>' }}{% endgeneration %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAVA_NEXT = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ '<<SYS>>\n' + message['content'][0]['text'] + '\n<</SYS>>\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}"
    "{% endfor %}{{ ' [/INST]' }}"
    "{% else %}{% generation %}{{ ' ' + message['content'][0]['text'] + '</s>' }}{% endgeneration %}"
    "{{ ' ' }}{% endif %}{% endfor %}"
)
IDEFICS = (
    "{% for message in messages %}{{ message['role'].capitalize() + ':' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ ' ' if message['content'][0]['type'] == 'text' else '' }}"
    "{% for part in message['content'] %}{{ part['text'] if part['type'] == 'text' else '<image>' }}{% endfor %}"
    "{{ '<end_of_utterance>' }}{% endgeneration %}{% else %}"
    "{{ ' ' if message['content'][0]['type'] == 'text' else '' }}"
    "{% for part in message['content'] %}{{ part['text'] if part['type'] == 'text' else '<image>' }}{% endfor %}"
    "{{ '<end_of_utterance>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QWEN_VL = (
    "{% set shown = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['role'] == 'assistant' %}{% generation %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>{% endgeneration %}\n{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "{% set shown.value = shown.value + 1 %}{% if add_vision_id %}Picture {{ shown.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Published:
    """A model's chat: its template, and its tokenizer in the form that it is published in."""

    marked: str  # the template, with answers marked
    kind: str  # of tokenizer: byte (GPT-2's), prefixed (SentencePiece, a space before every stretch) or first
    tokens: dict[str, str]
    special: tuple[str, ...] = ()  # besides
    rstrip: bool = False  # special tokens take the space behind them
    begins: bool = False  # the tokenizer puts BOS before a text
    stops: tuple[str, ...] = ()
    processor: bool = False  # the template is a processor's: it takes parts
    images: str = "vlmill"

    @property
    def template(self) -> str:
        """The template as it is published."""
        return re.sub(r"{% (end)?generation %}", "", self.marked)

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        made = Tokenizer.from_str(make_tokenizer(self.kind))
        plain = [token for token in self.tokens.values() if token not in self.special]
        made.add_special_tokens([AddedToken(token, normalized=False) for token in plain])
        made.add_special_tokens([AddedToken(token, normalized=False, rstrip=self.rstrip) for token in self.special])
        if self.begins:
            bos = self.tokens["bos_token"]
            made.post_processor = processors.TemplateProcessing(
                single=f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))]
            )
        return made

    def transformers(self, template: str | None = None) -> PreTrainedTokenizerFast:
        """The tokenizer as transformers has it."""
        return PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer(), chat_template=template or self.template, **self.tokens
        )

    def write(self, folder: Path) -> Path:
        """A folder as it is published, without weights."""
        folder.mkdir(parents=True, exist_ok=True)
        made = self.tokenizer()
        made.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({**self.tokens, "chat_template": self.template}))
        if self.processor:
            (folder / "chat_template.json").write_text(json.dumps({"chat_template": self.template}))
            (folder / "tokenizer_config.json").write_text(json.dumps(self.tokens))
        if self.stops:
            ids = [made.token_to_id(token) for token in self.stops]
            (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
        return folder

    def recipe(self, folder: Path) -> dict[str, Any]:
        """What a recipe says of it."""
        return {"path": str(self.write(folder)), "images": self.images}


LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
PUBLISHED = {
    "qwen2": Published(
        CHATML,
        "byte",
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
    "llama 3": Published(
        LLAMA3,
        "byte",
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|reserved_special_token_0|>"),
        begins=True,
        stops=("<|end_of_text|>", "<|eot_id|>"),
    ),
    "mistral": Published(MISTRAL, "prefixed", LLAMA, begins=True),
    "mistral, spaces before the first word alone": Published(MISTRAL, "first", LLAMA, begins=True),
    "vicuna": Published(VICUNA, "prefixed", LLAMA | {"pad_token": "<unk>"}, begins=True),
    "phi 3": Published(
        PHI3,
        "prefixed",
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"),
        rstrip=True,
        stops=("<|endoftext|>", "<|assistant|>", "<|end|>"),
    ),
    "gemma": Published(
        GEMMA,
        "byte",
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        ("<start_of_turn>", "<end_of_turn>"),
        begins=True,
        stops=("<eos>", "<end_of_turn>"),
    ),
    "llava 1.6": Published(
        LLAVA_NEXT, "prefixed", LLAMA | {"pad_token": "<pad>"}, ("<image>",), begins=True, processor=True
    ),
    "idefics2": Published(
        IDEFICS,
        "prefixed",
        LLAMA | {"pad_token": "<unk>"},
        ("<fake_token_around_image>", "<image>", "<end_of_utterance>"),
        begins=True,
        stops=("</s>", "<end_of_utterance>"),
        processor=True,
        images="idefics",
    ),
    "smolvlm": Published(
        "<|im_start|>" + IDEFICS,
        "byte",
        {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"},
        (
            "<fake_token_around_image>",
            "<image>",
            "<global-img>",
            "<end_of_utterance>",
            *tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
        ),
        processor=True,
        images="idefics3",
    ),
}
PUBLISHED["gemma3"] = Published(
    GEMMA3,
    "byte",
    PUBLISHED["gemma"].tokens,
    (*PUBLISHED["gemma"].special, "<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    begins=True,
    stops=PUBLISHED["gemma"].stops,
    processor=True,
    images="gemma3",
)
PUBLISHED["qwen2.5-vl"] = Published(
    QWEN_VL,
    "byte",
    PUBLISHED["qwen2"].tokens,
    (*PUBLISHED["qwen2"].special, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    stops=PUBLISHED["qwen2"].stops,
    processor=True,
    images="qwen",
)
PUBLISHED["qwen2, for qwen_vl"] = replace(PUBLISHED["qwen2"], images="qwen")


@cache
def make_tokenizer(kind: str) -> str:
    """A tokenizer.json without special tokens, trained on a few words."""
    made = Tokenizer(models.BPE())
    if kind == "byte":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        made.train_from_iterator(
            TEXTS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
        )
        return made.to_str()
    if kind == "prefixed":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    data = json.loads(made.to_str())
    learnt = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    data["model"]["vocab"] = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", *BYTES, *learnt])}
    data["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    return json.dumps(data)
