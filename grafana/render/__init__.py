"""Draws the committed dashboards from a running Prometheus, about as Grafana would: for pages and for a first look.

It reads the JSON, not the code that wrote it. It leaves out tooltips, annotations, and links from points to records.
"""
