from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from predawn.plugins.testing.clock import ManualClock
from predawn.proxy.access import Access, Identity, Lease
from predawn.proxy.exchange import RequestError
from predawn.proxy.keys import NANO, Key
from predawn.proxy.settings import PriceSettings, Settings
from predawn.proxy.spend import DAY_S
from predawn.proxy.store import Store
from predawn.proxy.tasks import Tasks

PRICE = PriceSettings(input_usd_per_mtok=1, output_usd_per_mtok=10)


class Budget(RuleBasedStateMachine):
    """Reserve, settle and cancel in any order, with any tokens used of those reserved."""

    leases: Bundle[Lease] = Bundle("leases")
    LIMIT = 1_000_000

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.access = Access(Settings(state="/nowhere"), self._no_store, self.clock, Tasks())
        self.identity = Identity.of(Key(id="key", name="n", nano_usd_per_day=self.LIMIT))
        self.spent = 0
        self.held: dict[Lease, int] = {}

    async def _no_store(self) -> Store:
        raise AssertionError("no store is needed")

    @rule(target=leases, prompt=st.integers(0, 400), output=st.integers(0, 60), price=st.sampled_from([PRICE, None]))
    def reserve(self, prompt: int, output: int, price: PriceSettings | None) -> Any:
        cost = 0 if price is None else 1000 * prompt + 10_000 * output
        admitting = self.access.reserve(self.identity, price, prompt, output)
        try:
            admitting.send(None)
        except StopIteration as done:
            self.held[done.value] = cost
            assert self.spent + sum(self.held.values()) <= self.LIMIT
            return done.value
        except RequestError as exc:
            refusal = exc
        assert refusal.code == "budget_exceeded"
        assert self.spent + sum(self.held.values()) + cost > self.LIMIT
        return multiple()

    @rule(lease=consumes(leases), share=st.floats(0, 1))
    def settle(self, lease: Lease, share: float) -> None:
        used = int(self.held.pop(lease) * share)
        lease.settle(1, 0, 1, used / NANO)
        self.spent += used

    @rule(lease=consumes(leases))
    def cancel(self, lease: Lease) -> None:
        del self.held[lease]
        lease.release()
        lease.settle(1, 0, 1, 1.0)

    @precondition(lambda self: self.spent)
    @rule()
    def sleep_until_tomorrow(self) -> None:
        self.clock._elapsed += DAY_S
        self.spent = 0

    @invariant()
    def spend_stays_below_the_limit(self) -> None:
        account = self.access._accounts.get("key")
        assert self.access._book.spent_today("key") == self.spent <= self.LIMIT
        if account is not None:
            assert account.nano_usd == sum(self.held.values())
            assert account.requests == len(self.held)
            assert self.spent + account.nano_usd <= self.LIMIT


TestBudget = Budget.TestCase
TestBudget.settings = settings(max_examples=60, stateful_step_count=30)
