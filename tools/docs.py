"""Build the documentation site: the generated pages first, then everything, strictly.

Run: python tools/docs.py            (needs: pip install -e ".[docs]" -e plugins/mir_l)
     python tools/docs.py --pages    only the generated pages, e.g. before `zensical serve`
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from docsite import write

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write the generated pages and build the site; return the exit status of the build."""
    write(ROOT / "docs")
    if "--pages" in sys.argv[1:]:
        return 0
    environment = {**os.environ, "PRUNEKIT_VERSION": f"PruneKit {version('prunekit')}"}
    zensical = Path(sys.executable).with_name("zensical")  # of this environment, activated or not
    return subprocess.run([zensical, "build", "--strict", "--clean"], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
