"""Budgets: how many requests may be sent that nobody asked for."""


class ShareBudget:
    """Extra requests as a share of the ordinary ones.

    Args:
        share: Extra requests for each ordinary one, in [0, 1].
        burst: Most extra requests that can be saved up.
    """

    def __init__(self, share: float, burst: float = 10.0) -> None:
        self._share = share
        self._burst = burst
        self._tokens = 0.0

    def earn(self) -> None:
        """Notes an ordinary request."""
        self._tokens = min(self._burst, self._tokens + self._share)

    def spend(self) -> bool:
        """Takes leave for an extra request."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RetryThrottle:
    """Retries stop where most requests fail: gRPC's retry throttling (gRFC A6).

    Each failure that could be tried again takes a token, each answer gives `token_ratio` back; while half of the tokens
    or fewer are left, nothing is tried again.

    Args:
        max_tokens: At the beginning, and at most.
        token_ratio: What an answer gives back.
    """

    def __init__(self, max_tokens: float = 10.0, token_ratio: float = 0.1) -> None:
        self._max = self._tokens = max_tokens
        self._ratio = token_ratio

    def answered(self) -> None:
        """Notes an answer."""
        self._tokens = min(self._max, self._tokens + self._ratio)

    def failed(self) -> bool:
        """Notes a failure; tells whether it may be tried again."""
        self._tokens = max(0.0, self._tokens - 1)
        return self._tokens > self._max / 2
