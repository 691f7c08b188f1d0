"""Nodes as they were once read, encoded.

Any change of a node moves its last_update_time_since_epoch, in MLMD as here. So a node that is stored with the time
that the cache knows is what the cache knows: reading it costs its row, and neither its properties nor encoding.
"""

import threading

from mlmesh_metadata.clock import now_ms

SETTLED_MS = 2000
"""MLMD may write twice in one millisecond: only what has been left alone for so long is kept."""
_ENTRY_BYTES = 250
"""What Python needs for an entry besides the encoded node, measured with sys.getsizeof."""


class NodeCache:
    """The nodes that were read last, up to a number of bytes. Threads share it.

    Two generations stand in for an order of use: when the young one is full it becomes the old one, and the old one is
    let go; what is found in the old one becomes young again.

    Args:
        max_bytes: Of both generations; 0: keep nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._generation_bytes = max_bytes // 2
        self._young: dict[tuple[str, int], tuple[int, bytes]] = {}
        self._old: dict[tuple[str, int], tuple[int, bytes]] = {}
        self._young_bytes = 0
        self._lock = threading.Lock()

    def get(self, kind: str, node_id: int, updated: int) -> bytes | None:
        """Gives an encoded node, behind its length, if it is known as it was at `updated` (ms since the epoch)."""
        key = (kind, node_id)
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is None:
                return None
            self._keep(key, found)
        return found[1] if found[0] == updated else None

    def put(self, kind: str, node_id: int, updated: int, encoded: bytes) -> None:
        """Keeps an encoded node, behind its length, if it has settled."""
        if updated < now_ms() - SETTLED_MS:
            self._keep((kind, node_id), (updated, encoded))

    def _keep(self, key: tuple[str, int], entry: tuple[int, bytes]) -> None:
        if not self._generation_bytes:
            return
        with self._lock:
            self._young[key] = entry
            self._young_bytes += len(entry[1]) + _ENTRY_BYTES
            if self._young_bytes > self._generation_bytes:
                self._young, self._old, self._young_bytes = {}, self._young, 0
