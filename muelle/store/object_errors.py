"""What obstore's errors mean, in one sentence.

They carry no status or kind as an attribute: a line of text, then the debugging form of the Rust error below it. That
this module still finds its way in there is shown with real servers, in ``tests/integration/test_fetch_web.py`` and
``tests/e2e/test_fetch_stores.py``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from obstore.exceptions import AlreadyExistsError, BaseError

from muelle.errors import BundleExistsError, MuelleError, NotFoundError, StoreError, StoreUnreachableError

_STATUS: Final = re.compile(r"\bstatus: (\d{3}),")
_ORIGIN: Final = re.compile(r"Error performing [A-Z]+ (https?://[^/\s?]+)")
#: S3's, GCS's and Azure's own words.
_CODE: Final = re.compile(r"<Code>([^<]{1,100})</Code>")
_MESSAGE: Final = re.compile(r"<Message>([^<]{1,300}?)\.?\s*</Message>", re.DOTALL)
#: The same of GCS where it speaks JSON.
_JSON_MESSAGE: Final = re.compile(r'"message":\s*"([^"]{1,300})"')
_CERTIFICATE: Final = re.compile(r"InvalidCertificate\(\s*(\w+)")
_LOOKUP: Final = re.compile(r"failed to lookup address information: ([^\"]+)\"")
#: Where machines in clouds ask for their credentials: link-local, so never the store itself.
_CREDENTIAL_SERVICE: Final = "//169.254."

#: A piece of the debugging form → what it means, and whether trying again may help; the first that fits counts.
_KINDS: Final = (
    ("BadScheme", "plain http, or a redirect to it, is refused; --insecure takes it all the same", False),
    ("TooManyRedirects", "redirects without an end", False),
    ("InvalidContentType", "{server} does not speak TLS", False),
    ("MissingContentLength", "the server does not say how long the file is, which is needed", False),
    ("MissingAccount", "AZURE_STORAGE_ACCOUNT_NAME is not set", False),
    ("ConnectionRefused", "{server} refused the connection", True),
    ("ConnectionReset", "{server} broke off", True),
    ("IncompleteBody", "the connection broke in the middle", True),
    ("TimedOut", "{server} did not answer in time", True),
    ("kind: Timeout", "{server} did not answer in time", True),
    ("kind: Connect", "{server} can't be reached", True),
    ("kind: Interrupted", "the connection broke in the middle", True),
    ("kind: Request", "{server} broke off", True),
)
_RETRIED: Final = frozenset({408, 425, 429})
_HINTS: Final = {
    401: "credentials are needed, or these are wrong",
    403: "these credentials may not do that, or there are none; some stores say so of a missing object too",
}


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn obstore's errors into Muelle's, with the object's URL in front."""
    try:
        yield
    except MuelleError:
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"{where}: not found{_own_words(str(error))}") from error
    except AlreadyExistsError as error:
        raise BundleExistsError(f"{where}: somebody else has just put a bundle there") from error
    except BaseError as error:
        raise _meaning(where, str(error)) from error
    except ValueError as error:
        raise StoreError(f"{where}: {_first_line(str(error))}") from error


def _meaning(where: str, text: str) -> StoreError:
    found = _ORIGIN.search(text)
    server = found[1] if found else "the server"
    what, again = _what(text, server)
    if _CREDENTIAL_SERVICE in text:
        what = f"there are no credentials in the environment, and asking this machine's own service failed: {what}"
    return (StoreUnreachableError if again else StoreError)(f"{where}: {what}")


def _what(text: str, server: str) -> tuple[str, bool]:
    """Return what is wrong, and whether trying again may help."""
    if status := _STATUS.search(text):
        code = int(status[1])
        known = code in HTTPStatus.__members__.values()
        answer = f"{server} answers {code}{f' {HTTPStatus(code).phrase}' if known else ''}"
        details = _own_words(text)
        if code in _HINTS and (not details or "AccessDenied" in details):
            details += f": {_HINTS[code]}"
        return answer + details, code >= 500 or code in _RETRIED
    if certificate := _CERTIFICATE.search(text):
        reason = certificate[1]
        return (
            f"{server}'s certificate is not trusted ({reason}); SSL_CERT_FILE can name an authority of your own",
            False,
        )
    if lookup := _LOOKUP.search(text):
        return f"the name of {server} can't be looked up: {lookup[1]}", True
    for piece, meaning, again in _KINDS:
        if piece in text:
            return meaning.format(server=server), again
    return _first_line(text), True


def _own_words(text: str) -> str:
    """Return what a store says of it, such as ``: NoSuchBucket, The specified bucket does not exist``."""
    code, message = _CODE.search(text), _MESSAGE.search(text) or _JSON_MESSAGE.search(text)
    words = [" ".join(found[1].split()) for found in (code, message) if found]
    return f": {', '.join(words)}" if words else ""


def _first_line(text: str) -> str:
    # A query may hold a signature.
    return re.sub(r"\?\S*", "?…", text.partition("\n")[0])[:300]
