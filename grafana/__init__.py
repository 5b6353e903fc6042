"""Grafana dashboards and Prometheus rules, written by code so that they cannot name what does not exist.

- `model/`: what a dashboard is made of: queries, panels, rows, and the JSON that Grafana reads;
- `promql.py`: queries are put together from the metrics that the proxy declares, with their labels;
- `boards/`: one file for each dashboard;
- `rules.py`, `alerts.py`: recording rules, objectives and alerts;
- `provisioning.py`: the files by which Grafana finds all of it;
- `build.py`: writes everything, `lint.py` reads it again with a stranger's eyes;
- `render/`: draws a dashboard from a running Prometheus.

It runs from a checkout and is no part of the wheel: `python -m grafana.build`.
"""
