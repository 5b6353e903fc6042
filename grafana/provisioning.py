"""The files by which a Grafana (10 or later) finds its Prometheus and these dashboards when it starts."""

from __future__ import annotations

from typing import Any

FOLDER = "/var/lib/grafana/dashboards/predawn"
RECORD = "http://localhost:8080/v1/exchanges/$${__value.raw}"  # $$: Grafana reads ${…} in these files as a variable


def datasource() -> dict[str, Any]:
    """A Prometheus beside Grafana; points on a heatmap lead to the record of the exchange."""
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "uid": "prometheus",
                "type": "prometheus",
                "access": "proxy",
                "url": "http://prometheus:9090",
                "isDefault": True,
                "jsonData": {
                    "httpMethod": "POST",
                    "timeInterval": "15s",
                    "exemplarTraceIdDestinations": [
                        {"name": "exchange_id", "url": RECORD, "urlDisplayLabel": "Record of the exchange"}
                    ],
                },
            }
        ],
    }


def dashboards() -> dict[str, Any]:
    """Where the dashboards lie; a changed file is read again by itself."""
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "predawn",
                "orgId": 1,
                "folder": "Predawn",
                "type": "file",
                "disableDeletion": True,
                "updateIntervalSeconds": 30,
                "allowUiUpdates": False,
                "options": {"path": FOLDER, "foldersFromFilesStructure": False},
            }
        ],
    }
