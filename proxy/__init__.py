"""The part of Predawn that moves requests and knows no feature.

Five ideas carry it:

- an *Exchange* is one request and everything decided about it (`exchange.py`);
- *Hooks* are the places where plugins act, frozen at start-up (`hookspecs.py`, `dispatch.py`);
- an *Upstream* turns an exchange into a reply (`upstreams/`), guarded by `resilience.py`;
- a *Reply* is a status, headers and a body that leaves as it came unless a plugin changed it (`relay.py`);
- a *scope* closes, whatever happens, what an exchange opened (`Exchange.scope`).
"""
