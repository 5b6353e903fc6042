"""The live page at `/` on the admin port: what happens now, drawn in a browser.

`feed.py` notes exchanges while somebody looks, and nothing while nobody does; `glance.py` says what is told of one;
`board.py` is where plugins show rows of their own; `totals.py` reads the metrics. `viewers.py` sends it all to
browsers, `gate.py` says who may look, `endpoints.py` answers. The page itself lies in `page/`: plain HTML, CSS and
modules, served as they are (`assets.py`).
"""
