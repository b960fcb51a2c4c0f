"""One line that says where a bundle is: what is taken, and how what is not is refused."""

from __future__ import annotations

import pytest

from muelle.errors import StoreError
from muelle.store.remote import local_path
from muelle.store.source import Source, parse_sources

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize("url", [
    "s3://bucket/iris/2",
    "gs://bucket/iris/2",
    "az://container/iris/2",
    "https://example.com/models/iris/2",
    "http://127.0.0.1:8000/iris/2",
    "oci://registry.example.com:5000/models/iris:2",
    "file:///srv/models/iris/2",
    "s3://bucket",
])  # fmt: skip
@pytest.mark.parametrize("form", ["{url}", "{url}@{digest}", "{url} {digest}", "  {url}/   {digest}\n"])
def test_a_url_with_and_without_a_digest(url, form):
    source = Source.parse(form.format(url=url, digest=DIGEST))
    assert source.url == url
    assert source.scheme == url.partition(":")[0]
    assert source.digest == (DIGEST if "{digest}" in form else None)
    assert str(source) == url


def test_a_query_is_kept_and_not_shown():
    source = Source.parse(f"https://example.com/iris/?sig=a@b&x=1@{DIGEST}")
    assert source.url == "https://example.com/iris?sig=a@b&x=1"
    assert source.digest == DIGEST
    assert str(source) == "https://example.com/iris?…"


@pytest.mark.parametrize(("text", "words"), [
    ("models/iris/2", r"models/iris/2: expected a URL that starts with one of s3://, .*; a folder .* is file:///models/"),
    ("/srv/iris", r"a folder of this machine is file:///srv/iris$"),
    ("ftp://host/iris", r"ftp://host/iris: expected a URL that starts with one of"),
    ("S3://bucket/iris", r"S3://bucket/iris: expected a URL that starts with one of"),
    ("s3:///iris", r"expected a bucket behind s3://"),
    ("https:///iris", r"expected a host behind https://"),
    ("https://host:x/iris", r"not a URL: "),
    ("https://[::1/iris", r"not a URL: "),
    ("https://host/ü", r"expected a URL of ASCII characters, others as %XX"),
    ("https://host/\x07", r"expected a URL of ASCII characters"),
    ("https://host/iris#x", r"'\?' and '#' mean nothing in a URL of https://"),
    ("s3://bucket/iris?x=1", r"'\?' and '#' mean nothing in a URL of s3://"),
    ("file://host/iris", r"expected a whole path behind file://"),
    ("file:///", r"expected a whole path behind file://"),
    (f"s3://b/iris {DIGEST} x", r"expected a URL and a digest, got 3 words"),
    ("s3://b/iris sha256:abc", r"s3://b/iris: expected sha256: and 64 hex digits behind the URL, got 'sha256:abc'"),
    (f"s3://b/iris@{DIGEST.upper().replace('SHA', 'sha')}", r"expected sha256: and 64 hex digits"),
])  # fmt: skip
def test_what_can_not_be_meant(text, words):
    with pytest.raises(StoreError, match=words):
        Source.parse(text)


def test_a_password_in_the_url_is_refused_and_not_repeated():
    with pytest.raises(StoreError, match="would be seen in logs") as caught:
        Source.parse("https://me:s3cr3t@example.com/iris")
    assert "s3cr3t" not in str(caught.value)


def test_lines_of_the_environment():
    assert parse_sources("") == parse_sources(" \n\n") == []
    assert parse_sources(f"\ns3://b/x {DIGEST}\r\n  gs://b/y\n") == [Source("s3://b/x", DIGEST), Source("gs://b/y")]


def test_a_local_folder_may_have_any_name():
    assert str(local_path(Source.parse("file:///srv/a%20b/%C3%BC"))) == "/srv/a b/ü"
    assert str(local_path(Source.parse("file://localhost/srv/x/"))) == "/srv/x"
