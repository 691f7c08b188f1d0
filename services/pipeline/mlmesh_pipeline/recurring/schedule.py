"""When a recurring run fires. Times are whole seconds since the epoch. See docs/decisions/0036."""

from dataclasses import dataclass

from mlmesh_kit.errors import InvalidArgument

from mlmesh_pipeline.recurring.cron import parse_cron

NEVER = 2**62
"""No time comes any more."""
MAX_INTERVAL = 100 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class Trigger:
    """What a recurring run says of its times: a cron expression or an interval.

    Args:
        cron: Expression; "": an interval.
        interval: Seconds.
        start: Nothing fires before it (with an interval: nothing before one interval after it); 0: none.
        end: Nothing fires after it; 0: none.
    """

    cron: str = ""
    interval: int = 0
    start: int = 0
    end: int = 0


class Schedule:
    """Says when a trigger fires.

    Args:
        trigger: Cron or interval.
        zone: Where cron's clock hangs unless the expression says so.
        field: Where the trigger is in a request.

    Raises:
        InvalidArgument: The trigger is none.
    """

    def __init__(self, trigger: Trigger, zone: str, field: str = "recurring_run.trigger") -> None:
        self._trigger = trigger
        if trigger.start and trigger.end and trigger.end < trigger.start:
            kind = "cron_schedule" if trigger.cron else "periodic_schedule"
            raise InvalidArgument("must not be before start_time", field=f"{field}.{kind}.end_time")
        self._cron = parse_cron(trigger.cron, f"{field}.cron_schedule.cron", zone) if trigger.cron else None
        if self._cron is None and not 1 <= trigger.interval <= MAX_INTERVAL:
            message = f"must be 1 to {MAX_INTERVAL}, not {trigger.interval}"
            raise InvalidArgument(message, field=f"{field}.periodic_schedule.interval_second")

    def next(self, last: int, created: int) -> int:
        """Gives when it fires next; `NEVER` if it does not.

        Args:
            last: When it fired last: the time that was scheduled; 0: not yet.
            created: When the recurring run was made.
        """
        since = max(last or self._trigger.start or created, self._trigger.start)
        return self._step(since)

    def due(self, last: int, created: int, now: int, *, catch_up: bool) -> int | None:
        """Gives the time for which it is to fire now; None if none has come.

        Args:
            last: When it fired last; 0: not yet.
            created: When the recurring run was made.
            now: The time.
            catch_up: Whether each time that was missed is made up for; else the latest one stands for all.
        """
        found = self.next(last, created)
        if found > now:
            return None
        if catch_up:
            return found
        if self._cron is None:
            # As KFP: with more than one missed, the count begins anew.
            return found if found + self._trigger.interval > now else min(now, self._trigger.end or now)
        return self._latest(found, now)

    def _latest(self, found: int, now: int) -> int:
        """Gives the last time of a cron expression up to now, by bisection: is there a time between here and now?"""
        assert self._cron is not None
        if self._cron.every:
            last = min(now, self._trigger.end or now)
            return found + (last - found) // self._cron.every * self._cron.every
        some, none = found, now + 1
        while none - some > 1:
            middle = (some + none) // 2
            if self._step(middle - 1) <= now:
                some = middle
            else:
                none = middle
        return some

    def _step(self, since: int) -> int:
        trigger = self._trigger
        after = self._cron.after(since) if self._cron is not None else since + trigger.interval
        if after is None or (trigger.end and after > trigger.end):
            return NEVER
        return after
