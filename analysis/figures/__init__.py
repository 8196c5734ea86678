"""Figure style, figure parts, and overviews of several results."""

import os
import sys
from contextlib import suppress

# All figures come by this package. matplotlib refuses to be imported where MPLBACKEND names a window system that it does not
# know, and our figures have no window: it is told of it afterwards, as it would have told itself.
if "matplotlib" not in sys.modules and (backend := os.environ.get("MPLBACKEND")):
    del os.environ["MPLBACKEND"]
    import matplotlib

    os.environ["MPLBACKEND"] = backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = backend
