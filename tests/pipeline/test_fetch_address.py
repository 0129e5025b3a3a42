"""Addresses: one spelling for each, and no way into a private network."""

import ipaddress
import socket
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.fetch.address import (
    MAX_URL,
    FetchFailed,
    apply_mirror,
    find_private_host,
    is_public,
    parse_address,
    resolve_host,
    resolve_redirect,
)


@pytest.mark.parametrize(
    ("url", "spelling"),
    [
        ("http://Example.ORG", "http://example.org/"),
        (" https://example.org:443/a.jpg#top\n", "https://example.org/a.jpg"),
        ("http://example.org:8080/a b.jpg?x=1&y=é", "http://example.org:8080/a%20b.jpg?x=1&y=%C3%A9"),
        ("http://bücher.example/naïve%20.jpg", "http://xn--bcher-kva.example/na%C3%AFve%20.jpg"),
        ("http://例え.jp/画像.png", "http://xn--r8jz45g.jp/%E7%94%BB%E5%83%8F.png"),
        ("http://example.org./a.jpg", "http://example.org/a.jpg"),
        ("http://[2001:DB8::1]:81/a", "http://[2001:db8::1]:81/a"),
        ("http://example.org?q=a.jpg", "http://example.org/?q=a.jpg"),
    ],
)
def test_an_address_has_one_ascii_spelling(url, spelling):
    assert parse_address(url).url == spelling
    assert parse_address(spelling).url == spelling


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.jpg",
        "//example.org/a.jpg",
        "ftp://example.org/a.jpg",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http://",
        "http:///a.jpg",
        "http://user@example.org/",
        "http://user:secret@example.org/",
        "http://example.org:port/",
        "http://example.org:99999/",
        "http://[::1/",
        "http://a..b/",
        "http://exa mple.org/",
        "http://exa\x00mple.org/",
        "http://" + "a" * 64 + ".org/",
        "http://" + "a." * 126 + "aa/",
        "http://example.org/" + "a" * MAX_URL,
        "http://example.org/\ud800",
    ],
)
def test_what_is_no_address_of_the_web_is_a_bad_url(url):
    with pytest.raises(FetchFailed) as caught:
        parse_address(url)
    assert caught.value.reason is Reason.BAD_URL
    assert "secret" not in caught.value.detail


@given(st.text(max_size=40))
def test_any_text_is_an_address_with_a_stable_spelling_or_a_bad_url(text):
    for url in (text, f"http://{text}", f"http://example.org/{text}"):
        with suppress(FetchFailed):
            spelling = parse_address(url).url
            assert spelling.isascii()
            assert spelling.isprintable()
            assert " " not in spelling
            assert parse_address(spelling).url == spelling


PRIVATE = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.2.1", "192.168.1.1",
    "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1",
    "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "fc00::1",
    "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1", "168.63.129.16", "192.88.99.1", "2001:2f::1",
    "2001:20::1", "3fff::1", "3fff:fff:ffff::1", "5f00::1", "::ffff:168.63.129.16", "2002:a83f:8110::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]


def test_only_addresses_of_the_internet_are_public():
    assert [address for address in PRIVATE if is_public(address)] == []
    assert [address for address in PUBLIC if not is_public(address)] == []


@given(st.ip_addresses(v=4).filter(lambda ip: not ip.is_global))
def test_no_ipv6_form_of_a_private_ipv4_address_is_public(ip):
    number = int(ip)
    for prefix, shift in (("::", 0), ("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80)):
        assert not is_public(str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + (number << shift))))


def resolver(*addresses):
    def getaddrinfo(_host, port, **_):
        families = (socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses)
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port))
            for family, address in zip(families, addresses, strict=True)
        ]

    return getaddrinfo


def test_a_name_with_one_private_address_among_public_ones_is_forbidden():
    with pytest.raises(FetchFailed) as caught:
        resolve_host(parse_address("http://example.org/"), set(), resolver("93.184.216.34", "10.0.0.1"))
    assert (caught.value.reason, caught.value.detail) == (
        Reason.FORBIDDEN_ADDRESS,
        "example.org resolves to 10.0.0.1",
    )


def test_a_private_host_can_be_allowed_at_every_port_or_at_one():
    target = parse_address("http://images.lan:8080/")
    for allowed in ({"images.lan"}, {"images.lan:8080"}):
        assert resolve_host(target, allowed, resolver("10.0.0.1")) == [(socket.AF_INET, ("10.0.0.1", 8080))]
    for allowed in (set(), {"images.lan:80"}, {"lan"}, {"10.0.0.1"}):
        with pytest.raises(FetchFailed):
            resolve_host(target, allowed, resolver("10.0.0.1"))


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "localhost"]
)
def test_no_spelling_of_loopback_gets_through(host):
    with pytest.raises(FetchFailed) as caught:
        resolve_host(parse_address(f"http://{host}/"), set(), socket.getaddrinfo)
    assert caught.value.reason in {Reason.FORBIDDEN_ADDRESS, Reason.NAME_LOOKUP}


@pytest.mark.parametrize(("error", "again"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)])
def test_a_name_server_that_does_not_answer_may_be_asked_again_and_a_name_that_does_not_exist_not(error, again):
    def fails(*_, **__):
        raise socket.gaierror(error, "no such luck")

    with pytest.raises(FetchFailed) as caught:
        resolve_host(parse_address("http://example.org/"), set(), fails)
    assert (caught.value.reason, caught.value.again) == (Reason.NAME_LOOKUP, again)


def test_the_longest_mirrored_prefix_is_rewritten():
    mirrors = {"http://a.org/": "http://b.org/x/", "http://a.org/deep/": "http://c.org/"}
    assert apply_mirror("http://a.org/1.jpg", mirrors) == "http://b.org/x/1.jpg"
    assert apply_mirror("http://a.org/deep/1.jpg?q", mirrors) == "http://c.org/1.jpg?q"
    assert apply_mirror("http://other.org/http://a.org/", mirrors) == "http://other.org/http://a.org/"


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "a/../x", "%2e%2e/x", "%2E./x", "a%2f..%2fx", "%252e%252e/x", "..%5cx", "..;a=b/x", "a/.%2e?q"],
)
def test_no_path_leads_out_of_a_mirror(path):
    with pytest.raises(FetchFailed) as caught:
        apply_mirror(f"http://a.org/{path}", {"http://a.org/": "http://b.org/x/"})
    assert caught.value.reason is Reason.FORBIDDEN_ADDRESS
    assert apply_mirror(f"http://a.org/{path}", {"http://c.org/": "http://b.org/x/"}) == f"http://a.org/{path}"


def test_a_path_that_is_encoded_again_and_again_is_soon_refused():
    with pytest.raises(FetchFailed, match="forbidden_address"):
        apply_mirror(f"http://a.org/%{'25' * 30_000}2e./x", {"http://a.org/": "http://b.org/x/"})


@pytest.mark.parametrize("path", ["...", "a..b", "a/.b/..c", "?x=/../y", "%20%25", "a%2e%2eb", "100%.png"])
def test_dots_that_are_names_are_mirrored(path):
    assert apply_mirror(f"http://a.org/{path}", {"http://a.org/": "http://b.org/x/"}) == f"http://b.org/x/{path}"


def test_a_redirect_is_relative_to_where_it_came_from_and_may_hold_raw_utf_8():
    assert resolve_redirect("http://a.org/x/y.jpg", "../z.jpg") == "http://a.org/z.jpg"
    assert resolve_redirect("http://a.org/x", "//b.org/é.jpg".encode().decode("latin-1")) == "http://b.org/%C3%A9.jpg"
    for location in ("file:///etc/passwd", "http://[::1/", "/" * (MAX_URL + 1)):
        with pytest.raises(FetchFailed, match="bad_url"):
            resolve_redirect("http://a.org/", location)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://127.0.0.1:8000/a.png", "127.0.0.1:8000"),
        ("http://127.0.0.1:80/a.png", "127.0.0.1"),
        ("http://[fd00::1]:81/a.png", "[fd00::1]:81"),
        ("http://[fd00::1]/a.png", "fd00::1"),
        ("http://LocalHost/a.png", "localhost"),
        ("http://images.internal/a.png", "images.internal"),
        ("http://printer.local./a.png", "printer.local"),
        ("http://10.0.0.3/a.png", ""),  # allowed
        ("http://10.0.0.4:81/a.png", ""),  # allowed with its port
        ("http://10.0.0.4/a.png", "10.0.0.4"),
        ("http://8.8.8.8/a.png", ""),
        ("http://example.org/a.png", ""),
        ("ftp://127.0.0.1/a.png", ""),  # malformed, which is another reason
    ],
)
def test_hosts_that_are_sure_to_be_refused_are_known_without_asking(url, host):
    assert find_private_host(url, {"10.0.0.3", "10.0.0.4:81"}) == host
