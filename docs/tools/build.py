"""Build the documentation site: the generated pages first, then everything, strictly.

Run: python docs/tools/build.py            (needs: pip install -e ".[docs]" -e plugins/mir_l)
     python docs/tools/build.py --pages    only the generated pages, e.g. before `zensical serve`
"""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from subprocess import PIPE, STDOUT

from docsite import write

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Write the generated pages and build the site; return 0 if nothing at all was wrong."""
    write(ROOT / "docs")
    if "--pages" in sys.argv[1:]:
        return 0
    environment = {**os.environ, "PRUNEKIT_VERSION": f"PruneKit {version('prunekit')}"}
    zensical = Path(sys.executable).with_name("zensical")  # of this environment, activated or not
    command = [zensical, "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=PIPE, stderr=STDOUT, text=True, check=False)
    sys.stdout.write(done.stdout)
    shutil.rmtree(ROOT / "site" / "tools", ignore_errors=True)  # this folder, which the build copies as it is
    return done.returncode or int("griffe: " in done.stdout)  # what it finds wrong with docstrings stops no build


if __name__ == "__main__":
    sys.exit(main())
