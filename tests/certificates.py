"""A certificate authority of the tests' own, and a server's certificate of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """PEM files: what a client must trust, and what the server at 127.0.0.1 and localhost shows."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make them, with RSA keys."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    server = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.RSA)
    made = Certificates(folder / "authority.crt", folder / "server.crt", folder / "server.key")
    authority.cert_pem.write_to_path(made.authority)
    server.cert_chain_pems[0].write_to_path(made.certificate)
    server.private_key_pem.write_to_path(made.key)
    return made
