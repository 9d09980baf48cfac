"""Import the demo's modules from its own folder, as in a Space."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "space"))
