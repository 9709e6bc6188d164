"""How many requests a server should hold at once: a state machine without clock, network or threads.

Its rules:

- The limit starts at `START`. It is never above its ceiling, nor below 1.
- Outcomes are counted in windows as long as the limit, but of at least `SHORTEST` outcomes. The window after
  a change is ignored, because its requests were sent under the old limit; the next one is measured, in tokens
  a second.
- While a higher limit raises the throughput by the factor `GAIN`, the limit grows: it doubles at first, and
  grows by a quarter once it has been too high.
- A higher limit that did not help is undone for `REST` windows. Then growth is tried again.
- Refusals (429), server errors (5xx) and timeouts are signs of overload. If they exceed the share `OVERLOAD`
  of a window, the limit is halved at once; fewer do not count. The outcomes of requests that are in flight at
  that moment are ignored, so that one burst of refusals halves the limit once.
- A window in which no request had to wait says nothing about the limit, and is not measured.
"""

START = 64
SHORTEST = 8
GAIN = 1.05
REST = 16
OVERLOAD = 0.2


class ConcurrencyLimit:
    """The limit of one server; it is told of every outcome, with the time in seconds of a monotonic clock."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.limit = min(START, ceiling)
        self._growth = 2.0
        self._smaller: tuple[int, float] | None = None
        self._rest = 0
        self._stale = 0
        self._begin(None)

    def answered(self, now: float, tokens: int, *, waiting: bool) -> None:
        """A request was answered; `waiting` says whether others wait to be sent."""
        if self._is_stale():
            return
        if not waiting:
            self._begin(None)
            return
        self._outcomes += 1
        self._tokens += tokens
        self._judge(now)

    def overloaded(self, now: float) -> None:
        """A request met a sign of overload."""
        if self._is_stale():
            return
        self._outcomes += 1
        self._overloads += 1
        if self._overloads > OVERLOAD * self._window:
            self._stale = self.limit - 1
            self._change(max(1, self.limit // 2))
            self._growth, self._smaller, self._rest = 1.25, None, 0
        else:
            self._judge(now)

    def _is_stale(self) -> bool:
        stale = self._stale > 0
        self._stale -= stale
        return stale

    @property
    def _window(self) -> int:
        return max(SHORTEST, self.limit)

    def _begin(self, now: float | None) -> None:
        """Start a window: one that is measured from `now`, or one to ignore (None)."""
        self._began = now
        self._outcomes = self._overloads = self._tokens = 0

    def _change(self, limit: int) -> None:
        self.limit = limit
        self._begin(None)

    def _judge(self, now: float) -> None:
        if self._outcomes < self._window:
            return
        if self._began is None:
            self._begin(now)
            return
        rate = self._tokens / max(now - self._began, 1e-9)
        smaller, self._smaller = self._smaller, None
        if self._rest:
            self._rest -= 1
            self._begin(now)
        elif smaller is not None and rate < GAIN * smaller[1]:
            self._growth, self._rest = 1.25, REST
            self._change(smaller[0])
        elif self.limit < self.ceiling:
            self._smaller = self.limit, rate
            self._change(min(self.ceiling, max(self.limit + 1, int(self.limit * self._growth))))
        else:
            self._begin(now)
