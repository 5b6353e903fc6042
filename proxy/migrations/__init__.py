"""The store's schema, step by step, run by alembic. `tables.py` shows where the steps lead.

A new step is a file in `versions/` and a new `HEAD`; revisions are four digits, so that newer ones sort last.
"""

HEAD = "0004"
"""The newest revision, known here so that alembic need not be imported to compare."""

LOCK_ID = 0x70726564
"""PostgreSQL's advisory lock of whoever migrates."""
