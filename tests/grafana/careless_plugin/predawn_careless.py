"""Fails now and then, so that the panels about failing plugins have something to show."""

from __future__ import annotations

import random

from predawn.plugins import Difficulty, Exchange, Plugin, RegisterVerifier, Step, Verdict, hookimpl


class Fickle:
    """A verifier without a verdict every third time."""

    name = "fickle"
    boundary = "sentence"

    async def verify(self, step: Step, exchange: Exchange) -> Verdict:
        if random.random() < 0.3:
            raise RuntimeError("not today")
        return Verdict(random.choice(("pass", "pass", "unsure")))


class Careless(Plugin):
    """Brings the verifier `fickle`, and an opinion that it cannot always form."""

    @hookimpl
    def register_verifiers(self, register: RegisterVerifier) -> None:
        register(Fickle())

    @hookimpl
    async def assess(self, exchange: Exchange) -> Difficulty | None:
        if random.random() < 0.1:
            raise RuntimeError("no opinion")
        return None
