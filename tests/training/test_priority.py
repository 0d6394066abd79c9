"""Training steps aside, with the threads that torch starts for it; the window does not."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from napari_volseg.training import priority
from napari_volseg.training.priority import LOW_NICE, lower_thread_priority

TRAINING = """
import json, os, threading
import torch
from napari_volseg.training.priority import lower_thread_priority

def threads():
    return {int(name) for name in os.listdir("/proc/self/task")}

def nice(thread):
    return os.getpriority(os.PRIO_PROCESS, thread)

def compute():
    torch.ones(2**20).add_(1)

def train(lower):
    lowered = lower and lower_thread_priority()
    torch.set_num_threads(2)
    before = threads()
    compute()
    started = threads() - before
    results.append([lowered, nice(threading.get_native_id()), [nice(t) for t in started]])

results = []
for lower in (True, False):
    thread = threading.Thread(target=train, args=(lower,))
    thread.start()
    thread.join()
torch.set_num_threads(2)
before = threads()
compute()
results.append([lower_thread_priority(), nice(0), [nice(t) for t in threads() - before]])
print(json.dumps(results))
"""


def in_a_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_torchs_own_threads_step_aside_and_the_main_thread_does_not():
    output = subprocess.check_output([sys.executable, "-c", TRAINING], text=True)
    lowered, other, main = json.loads(output)
    normal = os.getpriority(os.PRIO_PROCESS, 0)
    assert lowered == [True, LOW_NICE, [LOW_NICE]]
    assert other == [False, normal, [normal]]
    assert main == [False, normal, [normal]]


def test_the_main_thread_is_left_alone():
    assert not lower_thread_priority()


def test_a_system_that_refuses_is_told_of(monkeypatch):
    def refuse(*args):
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    assert not in_a_thread(lower_thread_priority)


def test_an_unknown_system_is_told_of(monkeypatch):
    monkeypatch.setattr(priority.sys, "platform", "plan9")
    assert not in_a_thread(lower_thread_priority)


class Function:
    """Stands for a function of the system: notes its arguments, gives one answer."""

    def __init__(self, answer):
        self.answer = answer
        self.calls = []

    def __call__(self, *args):
        self.calls.append(args)
        return self.answer


@pytest.mark.parametrize(("answer", "lowered"), [(1, True), (0, False)])
def test_on_windows_the_thread_itself_is_lowered(monkeypatch, answer, lowered):
    kernel = SimpleNamespace(GetCurrentThread=Function(-2), SetThreadPriority=Function(answer))
    monkeypatch.setattr(priority.sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "WinDLL", lambda name: kernel, raising=False)
    assert in_a_thread(lower_thread_priority) is lowered
    assert kernel.SetThreadPriority.calls == [(-2, -2)]


@pytest.mark.parametrize(("answer", "lowered"), [(0, True), (22, False)])
def test_on_macos_the_thread_becomes_a_utility(monkeypatch, answer, lowered):
    library = SimpleNamespace(pthread_set_qos_class_self_np=Function(answer))
    monkeypatch.setattr(priority.sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert in_a_thread(lower_thread_priority) is lowered
    assert library.pthread_set_qos_class_self_np.calls == [(0x11, 0)]
