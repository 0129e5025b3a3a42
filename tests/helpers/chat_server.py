"""A server of chat completions on loopback that rates pictures and texts, and fails as tests want it to."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests.helpers.servers import Answer, Visit, Web, whole

PATH = "/v1/chat/completions"

Body = dict[str, Any]
Decide = Callable[[Body], Answer]
"""The body of a request -> how it is answered."""


def reply(content: str | None, *, finish: str = "stop", tokens: tuple[int, int] = (100, 7)) -> Answer:
    """A completion."""
    found = {
        "id": "chatcmpl-1",
        "model": "served-model",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
    }
    return whole(json.dumps(found).encode(), Content_Type="application/json")


def refuse(status: int, message: str = "no", **headers: str | int) -> Answer:
    """An error as servers tell it."""
    found = json.dumps({"error": {"message": message}}).encode()
    return whole(found, status, **{"Content_Type": "application/json", **headers})


def read_pictures(body: Body) -> list[bytes]:
    """The pictures of a request."""
    content = body["messages"][0]["content"]
    urls = (
        [part["image_url"]["url"] for part in content if part["type"] == "image_url"] if content != str(content) else []
    )
    return [base64.b64decode(url.removeprefix("data:image/jpeg;base64,"), validate=True) for url in urls]


def read_prompt(body: Body) -> str:
    """The text of a request."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def name_request(body: Body) -> str:
    """What is the same for two requests about the same thing."""
    return hashlib.sha256("".join([read_prompt(body), *map(repr, read_pictures(body))]).encode()).hexdigest()


def choose_rating(body: Body) -> int:
    """The rating that a request gets, 1 to 5."""
    return 1 + int(name_request(body)[:8], 16) % 5


def rate(body: Body) -> Answer:
    """Ratings, by what was asked."""
    rating = choose_rating(body)
    return reply(json.dumps({"relevance": rating, "clarity": 6 - rating}))


class ChatServer(Web):
    """The server while the `with` block lasts; `decide` may be changed meanwhile."""

    def __init__(self, decide: Decide = rate) -> None:
        super().__init__({PATH: self._answer})
        self.decide = decide

    def _answer(self, visit: Visit) -> None:
        self.decide(json.loads(visit.body))(visit)

    @property
    def endpoint(self) -> str:
        """Up to /v1."""
        return self.url("/v1")

    def bodies(self) -> list[Body]:
        """Of all requests so far."""
        return [json.loads(visit.body) for visit in self.asked(PATH)]

    def forget(self) -> None:
        """Forget the requests so far."""
        with self._server.lock:
            self._server.seen.clear()
