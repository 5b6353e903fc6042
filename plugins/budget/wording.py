"""Words that tell something of how hard a request is. English; for other languages the rest of the features counts, and
what is learnt."""

from __future__ import annotations

from typing import Final

_OPERATIONS = """
more fewer less than twice thrice double triple half third quarter times each per total sum altogether combined
difference product divided multiplied plus minus remaining left average percent percentage ratio rate fraction area
volume perimeter probability
"""
_CHAINS = """
then after before next finally therefore hence thus step steps first second until again afterwards later derive
induction recursively sequence plan
"""
_HARD = """
prove proof theorem optimal optimise optimize integral derivative eigenvalue complexity debug refactor concurrency
deadlock contradiction counterexample puzzle constraint constraints schedule minimise minimize maximise maximize why
design architecture strategy
"""
_EASY = """
hello hi hey thanks thank please translate rewrite rephrase capital synonym spell greet title lowercase uppercase list
name
"""
OPERATIONS: Final = frozenset(_OPERATIONS.split())
CHAINS: Final = frozenset(_CHAINS.split())
HARD: Final = frozenset(_HARD.split())
EASY: Final = frozenset(_EASY.split())
