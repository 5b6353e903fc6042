"""What no request gets past: tokens per request, key and day; held before anything is sent, settled at the end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from predawn.plugins import RequestError

if TYPE_CHECKING:
    from predawn.plugins.budget.settings import CeilingSettings
    from predawn.proxy.clock import Clock
    from predawn.proxy.exchange import Holding

LEAST_TOKENS: Final = 16
"""A request that may say no more than this is refused instead."""
FEWER: Final = "samples and rounds are limited"


class Place(NamedTuple):
    """Whose day it is that tokens are booked on."""

    day: date
    tenant: str
    key_id: str


class Account:
    """Tokens of one day, on the books and held by requests in progress."""

    __slots__ = ("held", "spent")

    def __init__(self) -> None:
        self.spent = 0
        self.held = 0


class Limited(NamedTuple):
    """An account, the most it may come to, and the ceiling that says so."""

    account: Account
    limit: int
    name: str


class Held:
    """What one request holds; it ends once, by `settle`."""

    __slots__ = ("_accounts", "_calls", "_ceilings", "_each", "_open", "_place", "_request_tokens", "tokens")

    def __init__(  # noqa: PLR0917 - for whom, where, and how much
        self,
        ceilings: Ceilings,
        place: Place,
        accounts: tuple[Limited, ...],
        request_tokens: int | None,
        each: int,
        calls: int,
    ) -> None:
        self._ceilings = ceilings
        self._place = place
        self._accounts = accounts
        self._request_tokens = request_tokens
        self._each = each
        self._calls = calls - 1
        """Calls beyond the first that are held already and not begun."""
        self._open = True
        self.tokens = 0
        self._hold(each * calls)

    def extend(self, calls: int, output_tokens: int | None = None) -> int:
        """Hold room for so many calls more and say how many tokens that took. Raises `RequestError` 429, or holds all.

        Those granted before are held already, unless a call is another one, with `output_tokens` of its own.
        """
        if not self._open:
            return 0
        granted = min(calls, self._calls) if output_tokens is None else 0
        need = (calls - granted) * (self._each if output_tokens is None else output_tokens)
        rooms = [(limit - account.spent - account.held, name) for account, limit, name in self._accounts]
        if self._request_tokens is not None:
            rooms.append((self._request_tokens - self.tokens, "request_tokens"))
        room, scarce = min(rooms)
        if need and need > room:
            raise self._ceilings.exhausted(scarce, room, is_under_way=True)
        self._calls -= granted
        self._hold(need)
        return need

    def release(self, tokens: int) -> None:
        """Give back what `extend` has held."""
        if self._open:
            self._hold(-tokens)

    def _hold(self, tokens: int) -> None:
        self.tokens += tokens
        for limited in self._accounts:
            limited.account.held += tokens

    def settle(self, tokens: int) -> None:
        """Book what was really used in place of what was held."""
        if not self._open:
            return
        self._open = False
        for account, _, _ in self._accounts:
            account.held -= self.tokens
            assert account.held >= 0
            account.spent += tokens
        if tokens:
            self._ceilings.booked(self._place, tokens)


class Holdings:
    """Stands in for an exchange's lease: whatever is asked beyond what was granted is held under the ceilings too."""

    __slots__ = ("_held", "_lease")

    def __init__(self, held: Held, lease: Holding | None) -> None:
        self._held = held
        self._lease = lease

    async def extend(self, calls: int, prompt_tokens: int | None, output_tokens: int | None) -> None:
        """Hold room for so many calls more, all of it or none. Raises `RequestError` 429."""
        tokens = self._held.extend(calls, output_tokens)
        if self._lease is not None:
            is_held = False
            try:
                await self._lease.extend(calls, prompt_tokens, output_tokens)
                is_held = True
            finally:
                if not is_held:
                    self._held.release(tokens)


class Fitted(NamedTuple):
    """How much of what was asked for there is room for."""

    samples: int
    rounds: int
    answer_tokens: int | None
    """Most tokens of each answer; `None` where no ceiling limits them."""
    why: str
    """Which ceiling made it smaller; empty if none did."""
    held: Held | None
    refusal: RequestError | None = None
    """If there is room for nothing."""

    @property
    def is_scarce(self) -> bool:
        """True if there is less room than was asked for, or none."""
        return self.why not in {"", FEWER}


def most_of(samples: int, rounds: int, calls: int) -> tuple[int, int]:
    """As many samples and rounds as `calls` allow; of equally many calls, those with most rounds."""
    options = ((min(samples, calls // depth), depth) for depth in range(1, min(rounds, calls) + 1))
    return max(options, key=lambda option: (option[0] * option[1], option[1]))


class Ceilings:
    """The accounts of this day."""

    def __init__(self, settings: CeilingSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._day = self._today()
        self._accounts: dict[tuple[str, str], Account] = {}
        self._unwritten: dict[Place, int] = {}

    @property
    def limits_days(self) -> bool:
        limits = self._settings
        return any((limits.key_tokens_per_day, limits.tenant_tokens_per_day, limits.tokens_per_day))

    @property
    def limits_tokens(self) -> bool:
        return self._settings.request_tokens is not None or self.limits_days

    def fit(  # noqa: PLR0917 - a request's identity and what it wants
        self,
        tenant: str,
        key_id: str | None,
        samples: int,
        rounds: int,
        answer_tokens: int | None,
        choices: int = 1,
        *,
        spent: int = 0,
    ) -> Fitted:
        """Make a grant as small as it must be, and hold it. Waits for nothing, so nobody can come in between.

        `answer_tokens` is the limit that stands already, the client's or a tier's; `choices` are the client's own `n`;
        `spent` has been spent on the request before.
        """
        limits = self._settings
        fewer_samples, fewer_rounds = min(samples, limits.samples), min(rounds, limits.rounds)
        why = "" if (fewer_samples, fewer_rounds) == (samples, rounds) else FEWER
        if not self.limits_tokens:
            return Fitted(fewer_samples, fewer_rounds, answer_tokens, why, None)
        accounts = self._concerned(tenant, key_id or "")
        rooms = [(limit - account.spent - account.held, name) for account, limit, name in accounts]
        most = limits.request_tokens - spent if limits.request_tokens is not None else None
        if most is not None:
            rooms.append((most, "request_tokens"))
        if not rooms:  # what is limited is not this one's
            return Fitted(fewer_samples, fewer_rounds, answer_tokens, why, None)
        room, scarce = min(rooms)
        each = limits.answer_tokens if answer_tokens is None else answer_tokens
        if most is not None:
            each = min(each, max(most, 1))
        choices = max(choices, 1)
        if room < min(each, LEAST_TOKENS) * choices:
            return Fitted(1, 1, answer_tokens, scarce, None, self.exhausted(scarce, room))
        calls = room // (each * choices)
        if fewer_samples * fewer_rounds > calls:
            fewer_samples, fewer_rounds = most_of(fewer_samples, fewer_rounds, max(calls, 1))
            why = scarce
        if each * choices > room:
            each, why = room // choices, scarce
        place = Place(self._day, tenant, key_id or "")
        held = Held(self, place, accounts, most, each * choices, fewer_samples * fewer_rounds)
        return Fitted(fewer_samples, fewer_rounds, each, why, held)

    def hold(self, tenant: str, key_id: str | None, tokens: int) -> Held | None:
        """Hold tokens that are to be spent before a grant is made; `None` if there is no room for an answer then."""
        most = self._settings.request_tokens
        accounts = self._concerned(tenant, key_id or "") if self.limits_days else ()
        rooms = [limit - account.spent - account.held for account, limit, _ in accounts]
        if most is not None:
            rooms.append(most)
        if rooms and min(rooms) < tokens + LEAST_TOKENS:
            return None
        return Held(self, Place(self._day, tenant, key_id or ""), accounts, most, tokens, 1)

    def _concerned(self, tenant: str, key_id: str) -> tuple[Limited, ...]:
        if self._today() != self._day:
            self._day = self._today()
            self._accounts.clear()  # requests of yesterday settle with accounts that nobody looks at any more
        limits = self._settings
        wanted = (
            (("", ""), limits.tokens_per_day, "tokens_per_day"),
            ((tenant, "all"), limits.tenant_tokens_per_day, "tenant_tokens_per_day"),
            ((tenant, f"key {key_id}"), limits.key_tokens_per_day if key_id else None, "key_tokens_per_day"),
        )
        return tuple(Limited(self._account(key), limit, name) for key, limit, name in wanted if limit is not None)

    def _account(self, key: tuple[str, str]) -> Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account()
        return account

    def booked(self, place: Place, tokens: int) -> None:
        """Note what is to be written to the store."""
        if self.limits_days:
            self._unwritten[place] = self._unwritten.get(place, 0) + tokens

    def take_unwritten(self) -> dict[Place, int]:
        taken, self._unwritten = self._unwritten, {}
        return taken

    def give_back(self, unwritten: dict[Place, int]) -> None:
        """What could not be written waits for the next time."""
        for place, tokens in unwritten.items():
            self._unwritten[place] = self._unwritten.get(place, 0) + tokens

    def load(self, day: date, rows: Iterable[tuple[str, str, int]]) -> None:
        """Learn what the day has cost on all machines; what is not written yet is added."""
        if day != self._day:
            return
        totals: dict[tuple[str, str], int] = {}
        unwritten = [(place.tenant, place.key_id, n) for place, n in self._unwritten.items() if place.day == day]
        for tenant, key_id, tokens in (*rows, *unwritten):
            for key in (("", ""), (tenant, "all"), *([(tenant, f"key {key_id}")] if key_id else [])):
                totals[key] = totals.get(key, 0) + tokens
        for key, tokens in totals.items():
            self._account(key).spent = tokens

    @property
    def day(self) -> date:
        return self._day

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock.now(), UTC).date()

    def exhausted(self, scarce: str, room: int, *, is_under_way: bool = False) -> RequestError:
        """What a client is told of a ceiling; of a request under way, fewer calls more may fit without any waiting."""
        headers = {"x-should-retry": "false"}
        if scarce != "request_tokens" and not is_under_way:
            now = datetime.fromtimestamp(self._clock.now(), UTC)
            midnight = datetime(now.year, now.month, now.day, tzinfo=UTC) + timedelta(days=1)
            headers["retry-after"] = str(max(1, round((midnight - now).total_seconds())))
        words = f"The ceiling {scarce} of this server's settings has {max(room, 0)} tokens left."
        return RequestError(429, words, type="rate_limit_error", code="budget_exceeded", headers=headers)
