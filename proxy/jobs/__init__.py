"""Durable background work: a job is a function of short steps, and what a step returned is never computed again.

`protocol.py` is what plugins see. `durable.py` keeps jobs in SQLite or PostgreSQL (DBOS), `memory.py` is its twin for
tests; `runs.py` is what both do alike: jobs in progress, pauses, interruptions. `peers.py` tells which processes live,
and `reaper.py` takes over the jobs of the dead. `opening.py` opens the engine when a plugin first asks for it; without
such a plugin nothing of DBOS is imported.
"""
