"""Known vulnerabilities of the locked packages: what `make audit` tells, and when it fails.

pip-audit alone calls packages that it could not look up a success: here they are counted, and said.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"


def main(lock: Path = LOCK, words: list[str] | None = None) -> int:
    """Exit status 1 if a package has a known vulnerability that a newer version mends, or none mends yet.

    Args:
        words: of pip-audit, such as another advisory database.
    """
    command = [str(Path(sys.executable).with_name("pip-audit")), "--requirement", str(lock), "--require-hashes"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off", *(words or [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        print(f"audit: pip-audit ended with {done.returncode} before it told anything", file=sys.stderr)
        return 1
    packages = json.loads(done.stdout)["dependencies"]
    unknown = [package for package in packages if "skip_reason" in package]
    found = [(package, one) for package in packages for one in package.get("vulns", [])]
    for package, one in found:
        mended = ", ".join(one["fix_versions"]) or "no version yet"
        print(f"audit: {package['name']} {package['version']}: {one['id']}, mended in {mended}", file=sys.stderr)
    print(f"audit: {len(packages) - len(unknown)} of {len(packages)} packages looked up, {len(found)} vulnerabilities")
    if unknown:
        print(f"audit: {len(unknown)} are unknown, such as {unknown[0]['name']}: {unknown[0]['skip_reason']}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
