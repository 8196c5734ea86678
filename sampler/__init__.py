"""Forward and reverse diffusion: processes, scores, kernels and U-Turns.

Names are imported on first use; ``__init__.pyi`` lists them with their modules.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
