"""How many answers are drawn, which are given up, which one is the answer: one state machine for each way.

They know neither clock nor upstream, so that the proxy and `predawn simulate` run the same code. `protocol` has what
they are told and what they may ask for.
"""

from collections.abc import Mapping
from types import MappingProxyType

from predawn.plugins.sampling.strategies.best_of import BestOf
from predawn.plugins.sampling.strategies.confidence import Confidence
from predawn.plugins.sampling.strategies.first_m_of_k import FirstOfMany
from predawn.plugins.sampling.strategies.hedge import Hedge
from predawn.plugins.sampling.strategies.judge import Judging
from predawn.plugins.sampling.strategies.protocol import CreateStrategy, Options, Strategy
from predawn.plugins.sampling.strategies.revise import Revise
from predawn.plugins.sampling.strategies.single import Single
from predawn.plugins.sampling.strategies.vote import Vote
from predawn.plugins.sampling.strategies.waves import Waves

__all__ = ["STRATEGIES", "Options", "Strategy"]

STRATEGIES: Mapping[str, CreateStrategy] = MappingProxyType(
    {kind.name: kind for kind in (Single, Vote, FirstOfMany, Confidence, BestOf, Judging, Revise, Hedge, Waves)}
)
"""By name; call one with `Options` for each request."""
