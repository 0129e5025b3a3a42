"""Signal `ask`: a server with an OpenAI-compatible interface rates images and texts, or writes texts about them.

vLLM, SGLang, `transformers serve` and providers have `chat/completions` in common; pictures travel as data URIs. This
file says what is asked (`list_units`, `make_request`) and how an answer is read; `ask_worker.py` asks, and keeps what
was answered.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from importlib.metadata import version
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount, Seed
from vlmill.pipeline.core.keys import hash_value
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Node, Sample
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.images.policy import Side, Size
from vlmill.pipeline.images.views import JpegView
from vlmill.pipeline.signals.ask_form import (
    Scale,
    check_form,
    check_prompt,
    describe_form,
    fill_prompt,
    make_schema,
    read_ratings,
)
from vlmill.pipeline.signals.base import Of, PairText, Unit, list_units

VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
"""What an environment variable with a key may be called. Keys themselves have small letters."""

ROLES = {"user": "User: ", "assistant": "Assistant: ", "system": "System: ", "none": ""}


def _check_endpoint(endpoint: str) -> str:
    """The address without a slash at its end.

    Raises:
        ValueError: it is none. What is in it is not said: there may be a password.
    """
    example = "give the address up to /v1, such as http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise ValueError(f"is no address; {example}") from None
    if parts.username or parts.password:
        raise ValueError("a name or password does not stand in an address; name a variable: api_key: {env: NAME}")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise ValueError(f"is no address of http or https; {example}")
    return endpoint.rstrip("/")


def _refuse_key(value: Any) -> Any:
    """Refuse a key in the place of the name of its variable, without a word of it."""
    fits = isinstance(value, Mapping) and set(value) == {"env"} and isinstance(value["env"], str)
    if value is None or isinstance(value, ApiKey) or (fits and VARIABLE.fullmatch(value["env"])):
        return value
    raise ValueError(
        "a key does not stand in a recipe: put it into an environment variable in capital letters, and name that: "
        "api_key: {env: NAME}"
    )


@dataclass(frozen=True, config=STRICT)
class ApiKey:
    """Where the key of a server is: in an environment variable of the processes that ask."""

    env: str  # the name of the environment variable


@dataclass(frozen=True, config=STRICT)
class Price:
    """What a million tokens cost, in any currency."""

    input: float = Field(ge=0)  # tokens of prompts, with their images
    output: float = Field(ge=0)  # tokens of answers


@dataclass(frozen=True, config=STRICT)
class Ask:
    """Ratings on declared scales, or texts, by a model behind an OpenAI-compatible server."""

    kind: ClassVar[str] = "ask"
    version: ClassVar[int] = 1
    resources: ClassVar[Resources] = Resources(cpus=0.0, workers=1)

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] = field(
        metadata=RUNTIME
    )  # the address of the server, up to and with /v1
    model: str  # the model's name, as the server calls it
    prompt: str  # {text} is what is asked about, {form} the form of ratings in words
    answer: Annotated[
        Literal["text"] | Mapping[str, str],
        BeforeValidator(check_form, json_schema_input_type=Literal["text"] | dict[str, str]),
    ]  # `text`, or a scale for each rating: {relevance: 1-5}
    of: Of = "images"  # images, texts, pairs (an image with its texts) or samples (conversations with their images)
    text: PairText = "caption"  # of pairs: all texts of the sample, those of the image's turn, or its neighbours
    writes: Literal["beside", "instead"] | None = None  # a text node behind what it is about, or in a text's place
    longest: Side = 1024  # pixels of a picture's longer side; larger ones are resized
    max_tokens: Amount = 512  # of an answer; one that is cut there is no answer
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0  # of drawing tokens; 0 takes the likeliest
    seed: Seed = 0  # of drawing tokens, where the server takes one
    parameters: Mapping[str, Any] = field(default_factory=dict)  # more keys of a request; null leaves one of ours out
    again: Annotated[int, Field(ge=0, le=100)] = field(
        default=2, metadata=RUNTIME
    )  # how often it is asked again if the answer has not the form that is wanted
    concurrency: Annotated[int, Field(ge=1, le=4096)] = field(
        default=16, metadata=RUNTIME
    )  # requests that are sent at the same time
    retries: Annotated[int, Field(ge=0, le=100)] = field(
        default=5, metadata=RUNTIME
    )  # how often a request that the server failed is sent again
    seconds: Annotated[float, Field(gt=0, le=86_400)] = field(
        default=120.0, metadata=RUNTIME
    )  # seconds that one answer may take
    api_key: Annotated[ApiKey | None, BeforeValidator(_refuse_key, json_schema_input_type=ApiKey | None)] = field(
        default=None, metadata=RUNTIME
    )  # where the server's key is; None: it needs none
    price: Price | None = field(default=None, metadata=RUNTIME)  # for what a build will and did cost

    def __post_init__(self) -> None:
        """Refuse a prompt that cannot be filled."""
        try:
            check_prompt(self.prompt, has_text=self.of != "images", rates=self.rates)
        except ValueError as error:
            raise ValueError(f"prompt: {error}") from None
        if self.writes is not None and (self.rates or self.of == "samples"):
            raise ValueError(
                "writes: only texts about images and texts become nodes: `answer: text`, and no `of: samples`"
            )

    @property
    def rates(self) -> bool:
        """Whether the answer is ratings."""
        return self.answer != "text"

    @property
    def scales(self) -> dict[str, Scale]:
        """Of the ratings."""
        return {} if isinstance(self.answer, str) else {name: Scale.parse(text) for name, text in self.answer.items()}

    @property
    def prompt_sha256(self) -> str:
        """What names the prompt in the origin of what was written by it."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()

    def columns(self, name: str) -> tuple[str, ...]:
        """A column for each rating; of texts their length in characters."""
        return tuple(f"{name}_{scale}" for scale in self.scales) if self.rates else (f"{name}_characters",)

    def view(self) -> JpegView | None:
        """The pictures that are sent."""
        return None if self.of == "texts" else JpegView(self.longest)

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """What is asked of a sample; an image without texts is no pair."""
        if self.of != "samples":
            yield from (unit for unit in list_units(sample, self.of, self.text) if self.of != "pairs" or unit.texts)
            return
        shown = tuple(node.image for node in sample.nodes if node.image is not None)
        if shown or any(node.text for node in sample.nodes):
            yield Unit(WHOLE_SAMPLE, texts=(write_conversation(sample.nodes),), images=shown)

    def find_cost(self, sent: int, answered: int) -> float | None:
        """What so many tokens cost; None where the recipe does not say a price."""
        if self.price is None:
            return None
        return (sent * self.price.input + answered * self.price.output) / 1e6

    def made_by(self) -> Mapping[str, str]:
        """What draws the pictures that are sent."""
        return {"pillow": version("pillow")}

    def describe(self) -> dict[str, Any]:
        """What was asked for, for the file beside the values."""
        names = ("model", "prompt", "answer", "of", "longest", "max_tokens", "temperature", "seed", "parameters")
        return {**{name: getattr(self, name) for name in names}, "prompt_sha256": self.prompt_sha256}

    def make_request(self, texts: Sequence[str], pictures: Sequence[bytes]) -> Request:
        """What is sent about one unit."""
        form = describe_form(self.scales) if self.rates else ""
        return Request(self, fill_prompt(self.prompt, "\n\n".join(texts), form), tuple(pictures))

    def read_answer(self, content: str) -> tuple[float, ...] | None:
        """The values of an answer, in the order of `columns`; None where it is not of the form."""
        if self.rates:
            return read_ratings(content, self.scales)
        return (float(len(content)),) if content else None


CHARACTERS_PER_TOKEN, PIXELS_PER_TOKEN, TOKENS_PER_RATING = 4, 28 * 28, 12
"""Assumptions of an estimate: English texts; pictures as Qwen2-VL (arXiv:2409.12191) and its successors count them."""


def estimate_tokens(signal: Ask, unit: Unit, sizes: Mapping[int, Size]) -> tuple[int, int]:
    """About the tokens of one request: (sent, answered at most). Pure.

    Args:
        signal: What is asked.
        unit: About what.
        sizes: Image -> its pixels; (0, 0) where they are not known, then it is taken to be as large as it may be.
    """
    characters = len(signal.make_request(unit.texts, ()).prompt)
    pixels = 0.0
    for width, height in sizes.values():
        longer = max(width, height) or signal.longest
        pixels += (width * height or longer * longer) * min(1.0, signal.longest / longer) ** 2
    sent = characters / CHARACTERS_PER_TOKEN + pixels / PIXELS_PER_TOKEN
    answered = TOKENS_PER_RATING * len(signal.scales) if signal.rates else signal.max_tokens
    return round(sent), answered


def write_conversation(nodes: Sequence[Node]) -> str:
    """A sample in words, with a mark where each image stands."""
    images, lines = 0, list[str]()
    for node in nodes:
        if node.image is not None:
            images += 1
        said = node.text if node.image is None else f"[image {images}]"
        if said:
            lines.append(f"{ROLES[node.role]}{said}")
    return "\n".join(lines)


class Request:
    """One question: what names it, and the body that is sent."""

    def __init__(self, signal: Ask, prompt: str, pictures: tuple[bytes, ...]) -> None:
        self.signal, self.prompt, self.pictures = signal, prompt, pictures
        self.sha256 = hash_value(
            {
                "version": signal.version,
                "body": self._make_body(prompt),
                "answer": signal.answer,
                "pictures": [hashlib.sha256(picture).hexdigest() for picture in pictures],
            }
        )

    def _make_body(self, content: Any) -> dict[str, Any]:
        signal = self.signal
        body: dict[str, Any] = {
            "model": signal.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": signal.max_tokens,
            "temperature": signal.temperature,
            "seed": signal.seed,
            **signal.parameters,
        }
        return {name: value for name, value in body.items() if value is not None}

    def make_body(self, refused: Sequence[str], *, structured: bool) -> dict[str, Any]:
        """The JSON of a request.

        Args:
            refused: What was answered before, and not of the form: it is shown to the model, and the form said again.
            structured: Whether the server is told the form as a schema.
        """
        content: Any = self.prompt
        if self.pictures:
            shown = (base64.b64encode(picture).decode() for picture in self.pictures)
            uris = [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}} for data in shown]
            content = [*uris, {"type": "text", "text": self.prompt}]
        body = self._make_body(content)
        if refused:
            body["seed"] = self.signal.seed + len(refused) if "seed" in body else None
            body = {name: value for name, value in body.items() if value is not None}
        if self.signal.rates and refused and refused[-1]:
            wanted = f"This is not of the form that was asked for. Answer with {describe_form(self.signal.scales)}."
            said = [{"role": "assistant", "content": refused[-1][:2000]}, {"role": "user", "content": wanted}]
            body["messages"] = [*body["messages"], *said]
        if self.signal.rates and structured and "response_format" not in self.signal.parameters:
            body["response_format"] = make_schema(self.signal.scales)
        return body
