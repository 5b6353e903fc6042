"""What a violation does in `optimistic`, `gate` and `intervene`; `observe` only takes note, and needs nothing of this.

`flow.py` is the machine they run in, without any waiting: chunks and verdicts go in, `Action`s come out. What is held
back until it is verified lies in `holding.py`. `rules.py` has in what they differ.
"""
