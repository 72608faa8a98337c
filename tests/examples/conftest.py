import sys
from pathlib import Path

# The examples are scripts that import their neighbours, as Python's own path makes them do when one is run.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
