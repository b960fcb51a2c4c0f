"""Where bundle versions live."""

from muelle.store.folder import Repository, first_existing, search_list, version_key

__all__ = ["Repository", "first_existing", "search_list", "version_key"]
