"""The opener against a server of good and hostile answers: bounded in place, time and size."""

import errno
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.helpers.servers import Web, first, moved, picture, whole
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch import Fetch, opener
from vlmill.pipeline.fetch.address import FetchFailed
from vlmill.pipeline.fetch.opener import MAX_REDIRECTS, Opener


@pytest.fixture(scope="module")
def web():
    with Web() as server:
        yield server


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that were asked for, none of which is made."""
    asked = []
    monkeypatch.setattr(opener, "time", SimpleNamespace(monotonic=time.monotonic, sleep=asked.append))
    return asked


def rules(web, **changes):
    return replace(
        Fetch(allow_hosts=(web.host,), timeout_s=0.25, deadline_s=0.6, retries=0, max_bytes=1 << 16),
        **changes,
    )


def failure(web, path, **changes):
    with pytest.raises(FetchFailed) as caught:
        Opener(rules(web, **changes)).open(web.url(path) if path.startswith("/") else path)
    return caught.value.reason


@pytest.mark.parametrize(
    "path",
    [
        "/good.png",
        "/chunked.png",
        "/packed.png",
        "/moved.png",
        "/noai-other.png",
        "/no-type.png",
        "/good.png?q=é",
    ],
)
def test_a_good_answer_comes_as_it_is(web, path):
    assert Opener(rules(web)).open(web.url(path)).data == picture()


def test_the_request_says_who_asks_and_what_for(web):
    Opener(rules(web, user_agent="vlmill/0.1 (someone@example.org)")).open(web.url("/good.png?who"))
    headers = web.asked("/good.png?who")[0].headers
    assert headers["User-Agent"] == "vlmill/0.1 (someone@example.org)"
    assert headers["Host"] == web.host
    assert headers["Accept-Encoding"] == "identity"
    assert {"Referer", "Cookie", "Authorization"}.isdisjoint(headers)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/absent.png", Reason.HTTP_CLIENT_ERROR),
        ("/forbidden.png", Reason.HTTP_CLIENT_ERROR),
        ("/busy.png", Reason.HTTP_CLIENT_ERROR),
        ("/error.png", Reason.HTTP_SERVER_ERROR),
        ("/no-location.png", Reason.HTTP_UNEXPECTED),
        ("/loop.png", Reason.TOO_MANY_REDIRECTS),
        ("/metadata.png", Reason.FORBIDDEN_ADDRESS),
        ("/loopback.png", Reason.FORBIDDEN_ADDRESS),
        ("/localhost.png", Reason.FORBIDDEN_ADDRESS),
        ("/file.png", Reason.BAD_URL),
        ("/silent.png", Reason.TIMED_OUT),
        ("/hang.png", Reason.TIMED_OUT),
        ("/drip.png", Reason.TIMED_OUT),
        ("/drip-headers.png", Reason.TIMED_OUT),
        ("/endless.png", Reason.TOO_MANY_BYTES),
        ("/endless-chunks.png", Reason.TOO_MANY_BYTES),
        ("/large.png", Reason.TOO_MANY_BYTES),
        ("/bomb.png", Reason.TOO_MANY_BYTES),
        ("/truncated.png", Reason.TRUNCATED_BODY),
        ("/truncated-chunk.png", Reason.TRUNCATED_BODY),
        ("/half-packed.png", Reason.TRUNCATED_BODY),
        ("/brotli.png", Reason.NOT_AN_IMAGE),
        ("/not-packed.png", Reason.NOT_AN_IMAGE),
        ("/hang-up.png", Reason.CONNECTION),
        ("/nonsense.png", Reason.CONNECTION),
        ("/noai.png", Reason.OPTED_OUT),
        ("/noai-ours.png", Reason.OPTED_OUT),
        ("/noai-dated.png", Reason.OPTED_OUT),
        ("/empty.png", Reason.EMPTY_BODY),
        ("/html.jpg", Reason.NOT_AN_IMAGE),
        ("/html-as-image.jpg", Reason.NOT_AN_IMAGE),
        ("/svg.svg", Reason.NOT_AN_IMAGE),
        ("/text.png", Reason.NOT_AN_IMAGE),
    ],
)
def test_a_hostile_answer_has_its_reason(web, path, reason):
    patience = {} if reason is Reason.TIMED_OUT else {"timeout_s": 10, "deadline_s": 30}  # for busy machines
    assert failure(web, path, **patience) is reason


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "gopher://127.0.0.1/",
    ],
)
def test_no_scheme_but_http_and_https_is_opened(web, url):
    assert failure(web, url) is Reason.BAD_URL


def test_a_private_host_is_not_even_connected_to_unless_it_is_allowed(web):
    assert failure(web, "/good.png?private", allow_hosts=()) is Reason.FORBIDDEN_ADDRESS
    assert failure(web, "/good.png?private", allow_hosts=("127.0.0.1:1",)) is Reason.FORBIDDEN_ADDRESS
    assert web.asked("/good.png?private") == []


def test_a_name_is_resolved_once_and_the_connection_goes_to_that_address(web):
    answers = iter(["127.0.0.1", "127.0.0.2"])  # a name that points elsewhere when asked again

    def rebinding(_host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    host = f"rebinding.test:{web.port}"
    assert (
        Opener(rules(web, allow_hosts=(host,)), rebinding).open(f"http://{host}/good.png?rebinding").data == picture()
    )
    assert web.asked("/good.png?rebinding")[0].headers["Host"] == host
    assert next(answers) == "127.0.0.2"


def test_a_redirect_to_a_name_that_resolves_to_a_private_address_is_refused(web):
    def resolver(host, port, **_):
        assert host in {"allowed.test", "inside.test"}
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    web.answers["/inside.png"] = moved(f"http://inside.test:{web.port}/good.png?inside")
    with pytest.raises(FetchFailed, match=r"inside\.test resolves to 127\.0\.0\.1"):
        Opener(rules(web, allow_hosts=("allowed.test",)), resolver).open(f"http://allowed.test:{web.port}/inside.png")
    assert web.asked("/good.png?inside") == []


def test_the_second_address_of_a_name_is_tried_when_the_first_does_not_answer(web):
    def resolver(_host, port, **_):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (("127.0.0.1", 1), ("127.0.0.1", port))
        ]

    assert (
        Opener(rules(web, allow_hosts=("two.test",)), resolver).open(f"http://two.test:{web.port}/good.png").data
        == picture()
    )


def test_redirects_are_followed_up_to_a_number(web):
    for step in range(MAX_REDIRECTS):
        web.answers[f"/hop/{step}"] = moved(f"/hop/{step + 1}", 301)
    web.answers[f"/hop/{MAX_REDIRECTS}"] = whole(picture())
    assert Opener(rules(web)).open(web.url("/hop/0")).data == picture()
    web.answers[f"/hop/{MAX_REDIRECTS}"] = moved("/good.png")
    assert failure(web, "/hop/0") is Reason.TOO_MANY_REDIRECTS


def test_x_robots_tag_is_for_those_who_ask_to_honour_it(web):
    assert Opener(rules(web, honour_robots=False)).open(web.url("/noai.png")).data == picture()


def test_a_body_of_exactly_the_limit_is_taken(web):
    assert Opener(rules(web, max_bytes=len(picture()))).open(web.url("/good.png")).data == picture()
    assert failure(web, "/good.png", max_bytes=len(picture()) - 1) is Reason.TOO_MANY_BYTES
    assert failure(web, "/chunked.png", max_bytes=len(picture()) - 1) is Reason.TOO_MANY_BYTES


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_passing_fault_is_tried_again_with_growing_pauses(web, pauses, status):
    web.answers["/flaky.png"] = first(3, whole(b"", status), whole(picture()))
    assert Opener(rules(web, retries=3, deadline_s=30)).open(web.url("/flaky.png")).data == picture()
    assert pauses == [0.5, 1, 2]


@pytest.mark.parametrize("path", ["/truncated.png", "/hang-up.png", "/silent.png"])
def test_what_the_network_does_is_tried_again(web, pauses, path):
    assert failure(web, f"{path}?again", retries=2, deadline_s=30, timeout_s=0.1)
    assert len(web.asked(f"{path}?again")) == 3
    assert pauses == [0.5, 1]


@pytest.mark.parametrize(
    "path",
    ["/absent.png", "/forbidden.png", "/html.jpg", "/empty.png", "/noai.png", "/large.png", "/loop.png"],
)
def test_what_would_come_again_is_not_asked_for_again(web, pauses, path):
    assert failure(web, path, retries=5, deadline_s=30)
    assert pauses == []


def test_retry_after_is_kept_if_the_deadline_leaves_time_for_it(web, pauses):
    web.answers["/limited.png"] = first(1, whole(b"", 429, Retry_After="7"), whole(picture()))
    assert Opener(rules(web, retries=1, deadline_s=30)).open(web.url("/limited.png")).data == picture()
    assert pauses == [7]
    assert failure(web, "/busy.png", retries=1, deadline_s=30) is Reason.HTTP_CLIENT_ERROR  # it asks for an hour
    assert pauses == [7]


@pytest.mark.parametrize("asked", ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "-1", "soon"])
def test_a_retry_after_that_cannot_be_is_as_good_as_none(web, pauses, asked):
    web.answers["/odd.png"] = first(1, whole(b"", 503, Retry_After=asked), whole(picture()))
    assert Opener(rules(web, retries=1, deadline_s=30)).open(web.url("/odd.png")).data == picture()
    assert pauses == [0.5]


@pytest.mark.parametrize("asked", ["9" * 5000, "31", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_pause_reaches_beyond_the_deadline(web, pauses, asked):
    web.answers["/later.png"] = whole(b"", 503, Retry_After=asked)
    assert failure(web, "/later.png", retries=5, deadline_s=30) is Reason.HTTP_SERVER_ERROR
    assert pauses == []


@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (ZeroDivisionError("of what?"), Reason.FETCH_ERROR, "ZeroDivisionError: of what?"),
        (RecursionError("\x1b[2J\ud800"), Reason.FETCH_ERROR, "RecursionError: ?[2J?"),
        (MemoryError(), Reason.OUT_OF_MEMORY, "the downloading process may hold no more"),
        (OSError(errno.ENOMEM, "no memory"), Reason.OUT_OF_MEMORY, "the downloading process may hold no more"),
    ],
)
def test_whatever_is_raised_over_an_address_is_its_failure(web, error, reason, detail):
    def resolver(*_, **__):
        raise error

    with pytest.raises(FetchFailed) as caught:
        Opener(rules(web), resolver).open("http://example.test/")
    assert (caught.value.reason, caught.value.detail) == (reason, detail)
    assert caught.value.__context__ is None or reason is Reason.FETCH_ERROR, "nothing holds what filled the memory"


def test_the_deadline_holds_over_all_tries(web):
    assert failure(web, "/drip.png?deadline", retries=100, deadline_s=0.3) is Reason.TIMED_OUT
    assert len(web.asked("/drip.png?deadline")) == 1


def test_proxies_of_the_environment_are_ignored(web, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    assert Opener(rules(web)).open(web.url("/good.png")).data == picture()


def test_a_mirror_is_asked_in_place_of_the_original_and_may_be_private(web):
    mirrors = {"http://images.example.test/": web.url("/")}
    web.answers["/moved-home.png"] = moved("http://images.example.test/good.png?home")
    mirrored = Opener(rules(web, allow_hosts=(), mirrors=mirrors))
    assert mirrored.open("http://images.example.test/good.png").data == picture()
    assert mirrored.open("http://images.example.test/moved.png").data == picture()
    assert mirrored.open("http://images.example.test/moved-home.png").data == picture()
    assert web.asked("/good.png?home")[0].headers["Host"] == web.host
    with pytest.raises(FetchFailed, match="forbidden_address"):  # the mirror's port alone is allowed
        mirrored.open("http://images.example.test/loopback.png")


def test_a_mirror_is_open_for_what_it_stands_for_and_for_nothing_else_on_its_host(web):
    def resolver(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    web.answers["/images/in.png"] = whole(picture())
    web.answers["/images/to-secret.png"] = moved(web.url("/good.png?secret"))
    web.answers["/images/to-itself.png"] = moved("/in.png")
    web.answers["/to-mirror.png"] = moved(web.url("/images/in.png"))
    given = rules(web, allow_hosts=("other.test",), mirrors={"http://images.test/": web.url("/images/")})
    mirrored = Opener(given, resolver)
    assert mirrored.open("http://images.test/in.png").data == picture()
    assert mirrored.open("http://images.test/to-itself.png").data == picture()
    for url in (
        web.url("/good.png?secret"),  # as a document may name it
        web.url("/images/in.png?named"),
        "http://images.test/../good.png?secret",
        "http://images.test/%2e%2e/good.png?secret",
        "http://images.test/to-secret.png",
        f"http://other.test:{web.port}/to-mirror.png",
    ):
        with pytest.raises(FetchFailed, match="forbidden_address"):
            mirrored.open(url)
    assert web.asked("/good.png?secret") == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate for `good.test`, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "good.test.pem"
    names = ["-subj", "/CN=good.test", "-addext", "subjectAltName=DNS:good.test"]
    made = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        *names,
        "-keyout",
        path,
        "-out",
        path.with_suffix(".crt"),
    ]
    subprocess.run(made, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


def test_the_certificate_is_checked_against_the_name_although_the_address_is_pinned(certificate, monkeypatch):
    def resolver(_host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    with Web(certificate=certificate) as web:
        changes = rules(web, allow_hosts=("good.test", "other.test"), timeout_s=5, deadline_s=10, retries=3)
        with pytest.raises(FetchFailed, match="connection: certificate: self-signed"):
            Opener(changes, resolver).open(f"https://good.test:{web.port}/good.png")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
        trusting = Opener(changes, resolver)
        assert trusting.open(f"https://good.test:{web.port}/good.png").data == picture()
        with pytest.raises(FetchFailed, match=r"connection: certificate: Hostname mismatch.*other\.test"):
            trusting.open(f"https://other.test:{web.port}/good.png")
        assert len(web.asked()) == 1


def test_tls_to_a_server_that_does_not_speak_it_is_a_connection_failure(web):
    assert failure(web, web.url("/good.png").replace("http:", "https:")) is Reason.CONNECTION


def test_a_port_that_nobody_listens_at_is_a_connection_failure(web):
    assert failure(web, "http://127.0.0.1:1/", allow_hosts=("127.0.0.1",)) is Reason.CONNECTION
