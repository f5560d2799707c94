"""Getting model files onto this machine, checked, and knowing which are here.

``ModelStore`` is all that the rest of Studio uses. Model files are data: only file types that hold data are
ever asked for, each is checked by its first bytes and its sha256, and none is visible before that.
"""

from studio.download.common import PullResult
from studio.download.model_store import ModelStore

__all__ = ["ModelStore", "PullResult"]
