"""What this process takes of the machine's memory, and giving back what the C library keeps of what was freed.

Freed blocks of frames and hidden states are kept by glibc for later use, tens of megabytes that move without a trend. They belong to
nobody, and a host that runs for days should have them back between two jobs.
"""

import ctypes
import os
from pathlib import Path


def resident() -> int:
    """Resident bytes of this process; 0 where the system does not tell without help."""
    try:
        import psutil

        return psutil.Process().memory_info().rss
    except ImportError:
        pages = Path("/proc/self/statm")
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def give_back() -> None:
    """Let the C library return its free pages to the system, where it can (glibc); a few milliseconds. Elsewhere nothing happens."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library
        pass


def held() -> int:
    """Resident bytes once free pages have been given back: what somebody holds."""
    give_back()
    return resident()
