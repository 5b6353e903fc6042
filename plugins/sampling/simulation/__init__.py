"""Strategies on answers that were recorded before: what each would have chosen, and what it would have cost.

`recording` reads the file, `playing` lets one strategy decide over one problem, `contest` puts the outcomes together.
The strategies are the ones that the proxy runs.
"""
