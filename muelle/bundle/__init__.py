"""The contract between training and service: a folder that can be verified before anything of it is loaded.

`save` writes a fitted estimator, `open_bundle` reads and verifies; the other modules are the parts.
"""

from muelle.bundle.reader import Bundle, open_bundle
from muelle.bundle.writer import save

__all__ = ["Bundle", "open_bundle", "save"]
