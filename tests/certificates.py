"""A certificate authority of the tests' own, and a server's certificate of it, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """PEM files: what a client must trust, and what the server at 127.0.0.1 and localhost shows."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make them; they hold for a day."""
    authority, authority_key = folder / "authority.crt", folder / "authority.key"
    certificate, key, request = folder / "server.crt", folder / "server.key", folder / "server.csr"
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    _run(*new, "-x509", "-keyout", authority_key, "-out", authority, "-days", "1", "-subj", "/CN=tests")
    _run(*new, "-keyout", key, "-out", request, "-subj", "/CN=localhost")
    sign = ["openssl", "x509", "-req", "-in", request, "-out", certificate, "-days", "1", "-extfile", extensions]
    _run(*sign, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial")
    return Certificates(authority, certificate, key)


def _run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, timeout=60)
