"""`predawn demo`: the proxy in front of a model, a few questions through it, and what they took.

`tour.py` has the steps, `upstream.py` finds the model, `questions.py` is what is asked, `asking.py` streams an answer,
`ink.py` colours it, and `cost.py` is the bill.
"""
