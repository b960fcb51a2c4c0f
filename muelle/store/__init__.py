"""Where bundle versions live."""

from muelle.store.folder import Repository

__all__ = ["Repository"]
