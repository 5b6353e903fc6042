"""Does the upstream get the client's body byte for byte?"""

import http.client

from tests.benchmarks.processes import get_bytes
from tests.benchmarks.proxy.bodies import ODD_BODIES
from tests.benchmarks.proxy.measure import Resident, Stage


def altered_bodies(stage: Stage, resident: Resident) -> dict[str, str]:
    """The odd bodies that did not arrive as they were sent, and what happened to them; empty for a byte relay."""
    return {name: problem for name, body in ODD_BODIES.items() if (problem := _problem(stage, resident, body))}


def _problem(stage: Stage, resident: Resident, body: bytes) -> str:
    requests = stage.upstream("/counts")["requests"]
    status = _post(resident, body)
    if stage.upstream("/counts")["requests"] == requests:
        return f"never arrived, status {status}"
    arrived = get_bytes(f"http://127.0.0.1:{stage.upstream_port}/last-body")
    if arrived == body:
        return "" if status == 200 else f"arrived, but status {status}"
    at = next((i for i, (a, b) in enumerate(zip(arrived, body, strict=False)) if a != b), min(len(arrived), len(body)))
    return f"{len(body)} bytes became {len(arrived)}, differing from byte {at}"


def _post(resident: Resident, body: bytes) -> int:
    headers = {"content-type": "application/json", "authorization": f"Bearer {resident.launch.key}"}
    headers |= dict(header.split(": ", 1) for header in resident.launch.headers)
    connection = http.client.HTTPConnection("127.0.0.1", resident.launch.port, timeout=30)
    try:
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (http.client.HTTPException, OSError):
        return 0
    finally:
        connection.close()
