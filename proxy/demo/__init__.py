"""`predawn demo`: the proxy in front of a real model, one question through it, and what that cost.

`tour.py` walks through it; `upstream.py` finds the model, `client.py` is the user's program, `cost.py` the bill.
"""
