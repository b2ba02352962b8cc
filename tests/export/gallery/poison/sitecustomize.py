"""Makes some pictures poisonous, in every Python that is started with this folder in PYTHONPATH.

Pillow is told by the last bytes of a file to hang, to die of a signal, or to take more memory than there is.
"""

import os
import signal
import time
from typing import Any

from PIL import Image

_open = Image.open


def _poisonous(file: Any, *arguments: Any, **named: Any) -> Any:
    content = file.getvalue() if hasattr(file, "getvalue") else b""
    if content.endswith(b"HANG"):
        time.sleep(3600)
    if content.endswith(b"DIES"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if content.endswith(b"EATS"):
        bytearray(1 << 40)
    return _open(file, *arguments, **named)


Image.open = _poisonous  # type: ignore[assignment]
