"""Asks pip-audit whether the locked packages have known vulnerabilities, and believes only whole answers.

pip-audit ends well when it could ask about nothing, so this reads its report: 0 if every package was asked about and
none is known to be vulnerable, 1 if one is, 2 if some could not be asked about. Run by `make audit`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCKS = Path(__file__).parent / "locks"
CLEAN, VULNERABLE, UNKNOWN = 0, 1, 2


def main(pip_audit: str = "pip-audit") -> int:
    """Audit each lock; the worst of their answers."""
    worst = CLEAN
    for lock in sorted(LOCKS.glob("*.txt")):
        status, words = audit(pip_audit, lock)
        print(f"{lock.name}: {words}")
        worst = max(worst, status, key=(CLEAN, UNKNOWN, VULNERABLE).index)
    return worst


def audit(pip_audit: str, lock: Path) -> tuple[int, str]:
    """What pip-audit says of one lock, as an exit status and a sentence."""
    command = [
        pip_audit,
        "--disable-pip",
        "--require-hashes",
        "--format=json",
        "--progress-spinner=off",
        "-r",
        str(lock),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own arguments
    try:
        return verdict(json.loads(done.stdout))
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return UNKNOWN, f"NOT AUDITED: pip-audit got no answer from the vulnerability service ({last[:200]})"


def verdict(report: dict[str, Any]) -> tuple[int, str]:
    """The same for a report that was read."""
    packages = report["dependencies"]
    found = [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no release yet'}"
        for one in packages
        for flaw in one.get("vulns", [])
    ]
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    asked = len(packages) - len(skipped)
    if found:
        return VULNERABLE, "\n  ".join([f"{len(found)} known vulnerabilities", *found])
    if skipped or not packages:
        return UNKNOWN, (
            f"NOT AUDITED: the vulnerability service knew nothing of {len(skipped)} of {len(packages)} packages, so "
            f"silence means nothing; {asked} are clean. Run this where the service can be reached"
        )
    return CLEAN, f"{asked} packages, no known vulnerability"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
