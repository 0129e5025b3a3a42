"""One request to an OpenAI-compatible server: bounded in time and bytes, to the one address that a recipe names.

No redirect is followed, no proxy of the environment is asked, and nothing is decompressed. The key of the server is
known here alone; whatever the server says is quoted without it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.excerpt import escape_text
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.signals.ask import ApiKey, Ask

LARGEST = 4 << 20
"""Bytes of an answer: a text of 100,000 tokens has 0.5 MB."""

BUSY = frozenset({408, 409, 425, 429})
"""Statuses below 500 that pass by themselves."""

WRONG_SETTINGS = frozenset({401, 402, 404, 405})
"""Statuses that speak against the recipe or the account, whatever is asked: no key, no credit, no such model."""


class ServerFailed(Exception):  # noqa: N818 - asked again, and an error only where it stays so
    """The server failed, was busy, or could not be reached.

    Attributes:
        reason: What it would be as a verdict.
        busy: Whether the server said that it has too much to do.
        wait: Seconds that it asks for.
    """

    def __init__(self, reason: Reason, detail: str, *, busy: bool = False, wait: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.busy, self.wait = reason, detail, busy, wait


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said in good order."""

    content: str | None  # of the answer; None where there is none that can be read
    whole: bool = True  # False where it was cut at max_tokens
    served: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    refusal: str = ""  # why this one thing is not answered
    status: int = 200


def read_key(key: ApiKey | None, where: str) -> str:
    """The key of a server; empty where none is asked for.

    Raises:
        RecipeError: the variable is not set, or holds what no header may. What is in it is not said.
    """
    if key is None:
        return ""
    value = os.environ.get(key.env, "").strip()
    if not value:
        raise RecipeError(
            f"{where}.api_key: the environment variable {key.env} is not set; on a cluster it has to be set on the "
            "node that asks"
        )
    if not (value.isascii() and value.isprintable()):
        raise RecipeError(f"{where}.api_key: the environment variable {key.env} holds what is no key")
    return value


class Endpoint:
    """A client of one server, in one event loop."""

    def __init__(self, name: str, signal: Ask) -> None:
        self.where, self.signal = f"signals.{name}", signal
        self._key = read_key(signal.api_key, self.where)
        self._client = httpx2.AsyncClient(
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": "vlmill",
                **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            },
            follow_redirects=False,
            trust_env=False,
            timeout=None,  # `seconds` is for all of a request
            limits=httpx2.Limits(max_connections=signal.concurrency, max_keepalive_connections=signal.concurrency),
        )

    def __repr__(self) -> str:
        return f"Endpoint({self.signal.endpoint})"

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def post(self, body: Mapping[str, Any]) -> Reply:
        """Ask once.

        Raises:
            ServerFailed: it may be better the next time.
            RecipeError: the server cannot be asked this way at all.
        """
        url = f"{self.signal.endpoint}/chat/completions"
        data = json.dumps(body, ensure_ascii=False).encode()
        try:
            async with asyncio.timeout(self.signal.seconds), self._client.stream("POST", url, content=data) as response:
                found = bytearray()
                async for piece in response.aiter_raw():
                    found += piece
                    if len(found) > LARGEST:
                        break
                status, headers = response.status_code, response.headers
        except TimeoutError:
            raise ServerFailed(Reason.TIMED_OUT, f"no whole answer in {self.signal.seconds:g} s") from None
        except (httpx2.HTTPError, OSError) as error:
            raise ServerFailed(Reason.CONNECTION, self.quote(f"{type(error).__name__}: {error}")) from None
        if status == 200:
            return self._read_reply(bytes(found))
        return self._read_failure(status, headers, bytes(found[:LARGEST]))

    def quote(self, text: str) -> str:
        """What a server or library said, in one line, cut, and without the key."""
        return escape_text(text.replace(self._key, "***") if self._key else text)

    def _read_reply(self, data: bytes) -> Reply:
        """A completion; one without content where it cannot be read."""
        try:
            found: Any = json.loads(data if len(data) <= LARGEST else b"")
            choice = found["choices"][0]
            content = choice["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return Reply(None)
        usage = found.get("usage")
        tokens = _read_count(usage, "prompt_tokens"), _read_count(usage, "completion_tokens")
        said = content.strip() if isinstance(content, str) else None
        served = self.quote(found["model"]) if isinstance(found.get("model"), str) else ""
        return Reply(said, choice.get("finish_reason") != "length", served, *tokens)

    def _read_failure(self, status: int, headers: Mapping[str, str], data: bytes) -> Reply:
        """A refusal of what was asked.

        Raises:
            ServerFailed, RecipeError: it is something else.
        """
        said = self.quote(f"HTTP {status} {data[:2000].decode(errors='replace')}")
        if status in BUSY or status >= 500:
            wait = read_retry_after(headers.get("Retry-After", ""), time.time())
            raise ServerFailed(Reason.HTTP_SERVER_ERROR, said, busy=status == 429, wait=wait)
        if status in WRONG_SETTINGS:
            raise RecipeError(
                f"{self.where}: {self.signal.endpoint} does not answer for the model {self.signal.model!r}: {said}; "
                "see to `endpoint`, `model` and `api_key`, and run the same command again"
            )
        if not 400 <= status < 500:
            hint = "; redirects are not followed" if 300 <= status < 400 else ""
            raise RecipeError(f"{self.where}.endpoint: {self.signal.endpoint} gives no completion: {said}{hint}")
        return Reply(None, refusal=said, status=status)

    def explain_end(self, failed: ServerFailed) -> StoreError:
        """The error of a build whose server does not answer."""
        state = "is too busy" if failed.busy else "does not answer"
        return StoreError(
            f"{self.where}: the server {self.signal.endpoint} {state} ({failed.detail}), after "
            f"{self.signal.retries + 1} tries; run the same command again when it does: what was answered is kept"
        )


def _read_count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and 0 <= value < 1 << 40 else 0


def read_retry_after(text: str, now: float) -> float | None:
    """The seconds that a header `Retry-After` asks for: a number, or a date (RFC 9110, 10.2.3). None where it does not.

    Args:
        text: The header.
        now: Seconds since 1970.
    """
    if text.strip().isdigit():
        return float(text.strip()[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
