"""Bytes → validated data → bytes, one module a protocol. No Flask here."""
