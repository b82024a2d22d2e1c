"""Loaded by every Python child of novad at its start: on one real-time signal it writes its stacks to stderr.

faulthandler's handler is C and works in a process that is stuck in a loop or in a lock. A process that has not loaded
this is never sent the signal; novad looks into /proc whether it is caught. Nothing else is changed: the path entry
that led here is taken back, and the sitecustomize that it hid is loaded as if this one were not there.
"""

import faulthandler
import os
import signal
import sys

# The same number as in novad.host.stacks, which cannot be imported from here.
faulthandler.register(signal.SIGRTMAX - 1, all_threads=True)

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _here]
del sys.modules["sitecustomize"]
try:
    import sitecustomize  # noqa: F401
except ImportError as error:
    if error.name != "sitecustomize":
        raise
    # Python looks the module up again after loading it.
    sys.modules["sitecustomize"] = sys.modules[__name__] if __name__ in sys.modules else type(sys)(__name__)
