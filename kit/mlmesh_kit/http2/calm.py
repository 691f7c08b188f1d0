"""What a peer may do for nothing: frames that cost us work and bring none to do."""

from typing import Final

from mlmesh_kit.http2.faults import ConnectionFault, ErrorCode

FREE_FRAMES: Final = 2000
FREE_RESETS: Final = 500
_FRAMES_BY_SECOND: Final = 200
_RESETS_BY_SECOND: Final = 50
_FRAMES_BY_WORK: Final = 8


class Calm:
    """Two allowances of a connection. Work earns them back, and so does time.

    Frames: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown ones, empty DATA, streams that we refuse or reset, frames
    on closed streams. Resets: streams that the peer opens and cancels before they are answered ("rapid reset",
    CVE-2023-44487), which an honest client does now and then, or with many calls at once, but not for minutes.
    """

    __slots__ = ("_most_frames", "_most_resets", "frames", "resets")

    def __init__(self, frames: int = FREE_FRAMES, resets: int = FREE_RESETS) -> None:
        self.frames = self._most_frames = frames
        self.resets = self._most_resets = resets

    def frame(self) -> None:
        """Takes one frame off.

        Raises:
            ConnectionFault: There were too many.
        """
        self.frames -= 1
        if self.frames < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that ask for nothing")

    def reset(self) -> None:
        """Takes one cancelled stream off.

        Raises:
            ConnectionFault: There were too many.
        """
        self.resets -= 1
        if self.resets < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams opened only to be reset")

    def work(self) -> None:
        """Earns frames: data came, or left."""
        self.frames = min(self.frames + _FRAMES_BY_WORK, self._most_frames)

    def answered(self) -> None:
        """Earns a reset: a stream came to its end."""
        if self.resets < self._most_resets:
            self.resets += 1

    def second(self) -> None:
        """Earns what a second does."""
        self.frames = min(self.frames + _FRAMES_BY_SECOND, self._most_frames)
        self.resets = min(self.resets + _RESETS_BY_SECOND, self._most_resets)
