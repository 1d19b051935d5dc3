"""`python src/train.py` finds this file where it looks for the package, which lies one folder above it."""

import sys
from importlib import import_module
from pathlib import Path

if "." not in __name__:
    sys.path[:1] = [str(Path(__file__).parents[1]), str(Path.cwd())]  # `-m` has the second one, for modules of your own
    del sys.modules[__name__]
    import_module(__name__)
