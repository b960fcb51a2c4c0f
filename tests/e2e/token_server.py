"""The server that a registry sends its clients to for a token, as the large ones have it."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from certificates import Certificates
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from web_server import Handler, WebServer

ISSUER, SERVICE = "muelle-tests", "registry"
USER, PASSWORD, REFRESH_TOKEN = "me", "correct-horse", "refresh-me"


class TokenServer(WebServer):
    """Gives tokens to those who know the password or the refresh token; to others such as allow nothing."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        super().__init__(folder, certificates)
        self._certificates = certificates
        self.asked: list[dict[str, str]] = []
        #: How long a token counts; the registry allows for a minute of wrong clocks.
        self.seconds = 300.0
        self.behaviour = self._answer

    def _answer(self, handler: Handler) -> bool:
        text = urlsplit(handler.path).query
        if handler.command == "POST":
            text = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        form = {key: values[0] for key, values in parse_qs(text).items()}
        self.asked.append({"method": handler.command, **form})
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        given = handler.headers.get("Authorization")
        if given not in (None, basic):
            handler.answer(401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}')
            return True
        known = given == basic or form.get("refresh_token") == REFRESH_TOKEN
        kind, name, actions = form["scope"].split(":")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}] if known else []
        key = "access_token" if handler.command == "POST" else "token"
        handler.answer(200, json.dumps({key: self._token(access)}).encode())
        return True

    def _token(self, access: list[dict[str, object]]) -> str:
        der = x509.load_pem_x509_certificate(self._certificates.certificate.read_bytes()).public_bytes(Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "nbf": now - 10, "iat": now, "jti": "1", "access": access}
        claims["exp"] = now + int(self.seconds)
        signed = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        key = load_pem_private_key(self._certificates.key.read_bytes(), password=None)
        assert isinstance(key, RSAPrivateKey)
        signature = key.sign(signed, PKCS1v15(), SHA256())
        return (signed + b"." + _base64(signature)).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
