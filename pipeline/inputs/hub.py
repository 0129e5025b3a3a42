"""Input files on the Hugging Face Hub: dataset repositories at one commit, listed with their hashes and read by range.

A branch or tag is resolved once per build, and every address from there on names the commit. Large files are hashed by
the Hub itself (the sha256 of its large file storage), so nothing is downloaded to know what is in them. The token is
huggingface_hub's business alone (HF_TOKEN, or `hf auth login`): it is sent to the Hub and stands in no file, message or
address.
"""

from __future__ import annotations

import logging
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote

from fsspec.utils import glob_translate
from httpx2 import HTTPError, Response
from huggingface_hub import HfApi, HfUri, RepoFile, constants, get_token, hf_hub_url, parse_hf_uri
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HfUriError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

from vlmill.pipeline.core.config import suggest_names
from vlmill.pipeline.core.errors import SourceError
from vlmill.pipeline.inputs.hub_files import HubFile, HubUnreachableError, RemoteFile
from vlmill.pipeline.inputs.ranges import RangedReader

LIBRARY = "vlmill"  # what the Hub's owners see in their logs
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")

ATTEMPTS = 3
"""For a body of the wrong length. Errors of the connection and of the server are asked again inside `http_backoff`, up
to 5 times."""


WHOLE = 32 << 20
"""Files up to this size may come whole to one who asked for a part; so do some that lie in git."""


def is_repository(root: str) -> bool:
    """Whether a root on the Hub is a whole repository, not a folder or files in one.

    Raises SourceError if it is malformed.
    """
    return not _parse_root(root).path_in_repo


def pin_revision(root: str) -> str:
    """`root` with a commit as its revision; the Hub is asked unless it has one already.

    Raises:
        SourceError: the root is malformed; or the repository or revision is not there, or not for us.
    """
    where = _parse_root(root)
    if where.revision and COMMIT.fullmatch(where.revision):
        return str(where.to_uri())
    revision = where.revision or constants.DEFAULT_REVISION
    where = replace(where, revision=revision)
    url = f"{constants.ENDPOINT}/api/datasets/{where.id}/revision/{quote(revision, safe='')}"
    with _explain_errors(where):
        found = _get_response(
            url, params={"expand": ["sha"]}
        ).json()  # HfApi.dataset_info asks once only, without a time limit
    commit = found.get("sha") if isinstance(found, dict) else None
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise SourceError(
            f"{where.to_uri()}: {constants.ENDPOINT} gives no commit for it; is HF_ENDPOINT that of a Hub?"
        )
    return str(replace(where, revision=commit).to_uri())


def split_root(root: str) -> tuple[str, str]:
    """The repository of a root at its revision, as another root, and the folder in it.

    Raises SourceError if the root is malformed.
    """
    where = _parse_root(root)
    return str(replace(where, path_in_repo="").to_uri()), where.path_in_repo


def find_files(root: str, pattern: str) -> list[HubFile]:
    """The file below `root` of this name, or else those that match it as fsspec's glob has it, in no order.

    Raises:
        SourceError: there is none; the message has the nearest names.
    """
    where = _parse_root(pin_revision(root))
    folder = posixpath.dirname(re.split(r"[*?\[]", pattern, maxsplit=1)[0])
    matches = re.compile(glob_translate(pattern)).match
    listed = _list_folder(where, folder)
    found = [entry for entry in listed if entry.name == pattern] or [one for one in listed if matches(one.name)]
    if not found:
        names = [entry.name for entry in _list_folder(where, "")]
        close = get_close_matches(pattern, names, n=5, cutoff=0.4) or sorted(names)[:5]
        raise SourceError(
            f"{where.to_uri()}: no file matches {pattern}; "
            + (f"of {len(names)} files the nearest are: {', '.join(close)}" if names else "there are no files at all")
        )
    return found


def find_split(root: str, subset: str | None, split: str) -> list[HubFile]:
    """The files of a split of a subset (config).

    `datasets` reads them so from the repository's README or its file names.

    Raises:
        SourceError: there is no such subset or split; the message has the nearest.
    """
    where = _parse_root(pin_revision(root))
    if where.path_in_repo:
        raise SourceError(
            f"{root}: `subset` and `split` are those of a whole repository; leave {where.path_in_repo!r} out"
        )
    with _explain_errors(where):
        files = _list_data_files(where, subset)
    if not files.get(split):
        raise SourceError(
            f"{root}: there is no split {split!r} in {subset or 'it'}; {suggest_names(split, list(files))}"
        )
    names = {url.removeprefix(f"{where.to_uri()}/") for url in files[split]}
    folder = posixpath.commonpath([posixpath.dirname(name) for name in names])
    return [entry for entry in _list_folder(where, folder) if entry.name in names]


def _list_data_files(where: HfUri, subset: str | None) -> Mapping[str, list[str]]:
    """Split -> addresses of its files."""
    import datasets  # noqa: PLC0415 - takes a second, and few sources ask for it

    repository = f"datasets/{where.id}"
    named: dict[str, Any] = {"path": f"{constants.HF_PROTOCOL}{repository}", "revision": where.revision}
    try:
        with tempfile.TemporaryDirectory(prefix="vlmill-datasets-") as cache:
            return datasets.load_dataset_builder(name=subset, cache_dir=cache, **named).config.data_files or {}
    except (HTTPError, OfflineModeIsEnabled):
        raise
    except Exception as error:  # the README is anybody's: YAML, types and patterns go wrong in many ways
        try:
            subsets = datasets.get_dataset_config_names(**named)
        except Exception:  # noqa: BLE001 - then the first error says why
            subsets = []
        if subsets and subset not in subsets:
            raise SourceError(
                f"{where.to_uri()}: `subset` {subset!r}: {suggest_names(subset or '', subsets)}"
            ) from error
        raise SourceError(
            f"{where.to_uri()}: its subsets and splits cannot be read; give `files` instead: {error}"
        ) from error


def _list_folder(where: HfUri, folder: str) -> list[HubFile]:
    """Every file below a folder of the root; none where there is no such folder."""
    api = HfApi(endpoint=constants.ENDPOINT, library_name=LIBRARY)
    top = posixpath.join(where.path_in_repo, folder).rstrip("/")
    with _explain_errors(where):
        try:
            items = list(
                api.list_repo_tree(where.id, top or None, recursive=True, revision=where.revision, repo_type=where.type)
            )
        except EntryNotFoundError:
            return []
    start = f"{where.path_in_repo}/" if where.path_in_repo else ""
    return [
        _make_entry(where, item, start) for item in items if isinstance(item, RepoFile) and item.path.startswith(start)
    ]


def _make_entry(where: HfUri, item: RepoFile, start: str) -> HubFile:
    sha256 = item.lfs.sha256 if item.lfs and SHA256.fullmatch(item.lfs.sha256) else ""
    return HubFile(
        item.path.removeprefix(start), str(replace(where, path_in_repo=item.path).to_uri()), int(item.size), sha256
    )


def _parse_root(root: str) -> HfUri:
    """Raises SourceError for what is not hf://datasets/OWNER/NAME[@REVISION][/FOLDER]."""
    try:
        where = parse_hf_uri(root)
    except HfUriError as error:
        raise SourceError(f"{root}: expected hf://datasets/OWNER/NAME[@REVISION][/FOLDER] ({error})") from error
    if where.type != "dataset":
        raise SourceError(
            f"{root}: expected hf://datasets/OWNER/NAME[@REVISION][/FOLDER], not the address of a {where.type}"
        )
    return where


def _get_response(url: str, headers: Mapping[str, str] | None = None, **options: Any) -> Response:
    """The answer of the Hub, asked again after errors of the connection and the server, as long as Retry-After says."""
    sent = {**build_hf_headers(library_name=LIBRARY), **(headers or {})}
    response = http_backoff("GET", url, headers=sent, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, **options)
    hf_raise_for_status(response)
    return response


class HubRanges(RangedReader):
    """A file of the Hub, read by range."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__(file.size)
        self._where = _parse_root(file.url)
        self._url = hf_hub_url(
            self._where.id,
            self._where.path_in_repo,
            repo_type=self._where.type,
            revision=self._where.revision,
            endpoint=constants.ENDPOINT,
        )

    def fetch_range(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), all of them: a shorter or longer answer is none."""
        wanted = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        for _ in range(ATTEMPTS):
            with _explain_errors(self._where):
                response = _get_response(self._url, wanted)
                data: bytes = response.content
            if response.status_code == 200 and len(data) == self._size <= WHOLE:
                return data[start:stop]
            if len(data) == stop - start and self._is_of_range(response, start, stop):
                return data
        raise SourceError(
            f"{self._where.to_uri()}: asked for bytes {start}-{stop - 1} of {self._size}, got {len(data)} bytes "
            f"with status {response.status_code} and Content-Range {response.headers.get('Content-Range')!r}, "
            f"{ATTEMPTS} times. Does a proxy or mirror stand between that cannot answer ranges?"
        )

    def _is_of_range(self, response: Response, start: int, stop: int) -> bool:
        ranges = {f"bytes {start}-{stop - 1}/{size}" for size in (self._size, "*")}
        return response.status_code == 206 and response.headers.get("Content-Range") in ranges


_ASKING: ContextVar[bool] = ContextVar("_ASKING", default=False)
"""Whether this module asks the Hub right now."""

logging.getLogger("huggingface_hub.utils._http").addFilter(lambda _: not _ASKING.get())
"""Each retry is a warning there, with an address. What comes of them is said once, by an error."""


@contextmanager
def _explain_errors(where: HfUri) -> Iterator[None]:
    """Trouble with the Hub as a SourceError that says what to do. Retries are not logged."""
    before = _ASKING.set(True)
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise HubUnreachableError(
            f"{where.to_uri()}: HF_HUB_OFFLINE forbids to ask the Hub; unset it, or point the source to a copy "
            "with --source NAME=PATH"
        ) from error
    except HTTPError as error:
        kind = SourceError if isinstance(error, HfHubHTTPError) else HubUnreachableError
        raise kind(f"{where.to_uri()}: {_describe_error(where, error)}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # no JSON, or none of the Hub's
        raise SourceError(
            f"{where.to_uri()}: {constants.ENDPOINT} answers what no Hub does ({error}); is HF_ENDPOINT right?"
        ) from error
    finally:
        _ASKING.reset(before)


def _describe_error(where: HfUri, error: HTTPError) -> str:
    """What went wrong and what to do about it. Addresses stay out: those of storage are signed."""
    again = "Run the same command again later (a build keeps what it has done), or read a copy with --source NAME=PATH"
    if not isinstance(error, HfHubHTTPError):
        return f"{constants.ENDPOINT} cannot be reached, or breaks off ({type(error).__name__}: {error}). {again}"
    if isinstance(error, RevisionNotFoundError):
        return f"there is no such revision; {_list_revisions(where)}"
    if isinstance(error, EntryNotFoundError):
        return "there is no such file in the repository"
    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError) or status in {401, 403, 404}:
        return _describe_refusal(where, error)
    if status == 429:
        return (
            f"the Hub has had too many requests from here, and still after waiting. {again}; with a token more are "
            "allowed"
        )
    return f"the Hub answers {status}, and still after waiting. {again}"


def _describe_refusal(where: HfUri, error: HfHubHTTPError) -> str:
    """Why a repository does not open. The Hub does not tell strangers whether a private one exists."""
    token = "the token in use does not open it" if get_token() else "no token is set"
    give = "set HF_TOKEN to a token of an account that may read it, or run `hf auth login`"
    if isinstance(error, GatedRepoError):
        return (
            f"the repository is gated, and {token}. Ask for access on {constants.ENDPOINT}/datasets/{where.id}, then "
            f"{give}"
        )
    if "invalid credentials" in (error.server_message or "").lower():
        return f"the Hub does not know the token in use; {give}, or take HF_TOKEN away"
    return f"there is no such dataset on {constants.ENDPOINT}, or it is private, and {token}. Check the name; or {give}"


def _list_revisions(where: HfUri) -> str:
    """The branches and tags of a repository, for an error."""
    try:
        refs = HfApi(endpoint=constants.ENDPOINT, library_name=LIBRARY).list_repo_refs(where.id, repo_type=where.type)
    except (HTTPError, ValueError):
        return f"{constants.ENDPOINT}/datasets/{where.id} shows those that are"
    return suggest_names(where.revision or "", [ref.name for ref in (*refs.branches, *refs.tags)])
