"""Long work steps aside: the calling thread lowers its own scheduling priority.

On Linux a thread's niceness is its own and is inherited by the threads it starts. Torch
starts its intra-op (OpenMP) workers at the first parallel operation *of each calling
thread*: called before the first torch operation in a thread, this lowers them as well.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

LOW_NICE = 10
"""A ninth of a core's time while one of normal priority, as the window, wants it. At 19, the
lowest, it would be a seventieth: beside a busy process, the work would stand still."""

THREAD_PRIORITY_LOWEST = -2
QOS_CLASS_UTILITY = 0x11


def lower_thread_priority() -> bool:
    """Lower the priority of the calling thread for the rest of its life.

    Call it first in the thread, before any torch operation (see above). The main thread
    is the window's or the user's own and is left alone. On Windows and macOS the threads
    that torch starts keep the priority the system gives them.

    Returns
    -------
    bool
        Whether the priority is lowered now; False in the main thread, and where the
        system does not allow it or is not known.
    """
    if threading.current_thread() is threading.main_thread():
        return False
    if sys.platform == "linux":
        # PRIO_PROCESS with a thread's id moves that thread alone; POSIX says the process.
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_NICE)
        except OSError:
            return False
        return True
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernel32")
        kernel.GetCurrentThread.restype = ctypes.c_void_p
        kernel.SetThreadPriority.argtypes = (ctypes.c_void_p, ctypes.c_int)
        return bool(kernel.SetThreadPriority(kernel.GetCurrentThread(), THREAD_PRIORITY_LOWEST))
    if sys.platform == "darwin":
        # Utility, not background: the latter confines the thread to the slow cores.
        failed = ctypes.CDLL(None).pthread_set_qos_class_self_np(QOS_CLASS_UTILITY, 0)
        return not failed
    return False
