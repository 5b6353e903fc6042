"""What Grafana reads when it starts."""

from __future__ import annotations

import yaml
from grafana.build import HERE

FILES = {
    kind: yaml.safe_load((HERE / "provisioning" / kind / "predawn.yaml").read_text())
    for kind in ("datasources", "dashboards")
}


def test_the_datasource_is_a_prometheus_with_a_name_that_stays() -> None:
    (source,) = FILES["datasources"]["datasources"]

    assert FILES["datasources"]["apiVersion"] == 1
    assert (source["type"], source["uid"], source["access"]) == ("prometheus", "prometheus", "proxy")


def test_an_exemplar_leads_to_the_record_of_its_exchange() -> None:
    (source,) = FILES["datasources"]["datasources"]
    (link,) = source["jsonData"]["exemplarTraceIdDestinations"]

    assert link["name"] == "exchange_id"
    assert link["url"].endswith("/v1/exchanges/$${__value.raw}")  # one $ would be a variable of the environment


def test_dashboards_are_read_from_a_folder_and_not_changed_by_hand() -> None:
    (provider,) = FILES["dashboards"]["providers"]

    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/var/lib/grafana/dashboards")
    assert provider["allowUiUpdates"] is False
