from __future__ import annotations

import threading
import time
import warnings

import pytest
from qtpy.QtCore import QCoreApplication, QThread, QThreadPool

from napari_volseg.data.errors import InputError
from napari_volseg.widgets.jobs import Background, Job
from tests.widgets.hands import live, wait_until


@pytest.fixture
def job(qapp):
    job = Job()
    yield job
    job.shutdown()
    wait_until(lambda: QThreadPool.globalInstance().waitForDone(10), "workers end")
    live(0.02)


@pytest.fixture
def background(qapp):
    background = Background()
    yield background
    background.shutdown()


@pytest.fixture
def heard(job):
    """What a job signals, in order."""
    heard = []
    job.yielded.connect(heard.append)
    job.refused.connect(lambda message: heard.append(f"refused: {message}"))
    job.ended.connect(lambda: heard.append("ended"))
    return heard


class Counter:
    """A generator that counts, until it is sent something."""

    def __init__(self):
        self.at = 0
        self.thread = None

    def run(self):
        self.thread = threading.get_ident()
        sent = None
        while sent is None:
            sent = yield self.at
            self.at += 1
            time.sleep(0.002)
        yield f"got {sent}"


def ended(heard):
    return bool(heard) and heard[-1] == "ended"


def test_events_come_in_order_and_in_the_gui_thread(job, heard):
    def three():
        yield from (1, 2, 3)

    threads = []
    job.yielded.connect(lambda event: threads.append(QThread.currentThread()))
    job.start(three)
    wait_until(lambda: ended(heard), "the job ends")
    assert heard == [1, 2, 3, "ended"] and not job.running
    assert set(threads) == {QCoreApplication.instance().thread()}


def test_work_is_done_in_another_thread(job, heard):
    counter = Counter()
    job.start(counter.run)
    job.send("stop")
    wait_until(lambda: ended(heard), "the job ends")
    assert counter.thread != threading.get_ident()


def test_what_is_sent_before_the_first_event_arrives_with_it(job, heard):
    counter = Counter()
    job.start(counter.run)
    job.send("stop")
    wait_until(lambda: ended(heard), "the job ends")
    assert heard[-2] == "got stop"


def test_all_that_is_sent_arrives_in_order_but_for_what_is_to_come_first(job, heard):
    arrived = []

    def listen():
        while len(arrived) < 4:
            sent = yield len(arrived)
            if sent is not None:
                arrived.append(sent)
            time.sleep(0.002)

    job.start(listen)
    for number in range(3):
        job.send(number)
    job.send("stop", first=True)
    wait_until(lambda: ended(heard), "the job ends")
    assert arrived == ["stop", 0, 1, 2]


def test_what_is_sent_to_one_that_is_over_is_no_error(job, heard):
    def two():
        yield 1
        yield 2

    job.start(two)
    for number in range(9):
        job.send(number)
    wait_until(lambda: ended(heard), "the job ends")
    assert heard == [1, 2, "ended"]


def test_a_job_runs_once_at_a_time(job, heard):
    counter = Counter()
    job.start(counter.run)
    with pytest.raises(RuntimeError, match="runs already"):
        job.start(counter.run)
    job.cancel()
    wait_until(lambda: ended(heard), "the job ends")


def test_bad_input_is_a_refusal(job, heard):
    def refuse():
        yield 1
        raise InputError("two classes are needed")

    job.start(refuse)
    wait_until(lambda: ended(heard), "the job ends")
    assert heard == [1, "refused: two classes are needed", "ended"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyError])
def test_a_defect_in_a_job_is_not_hidden_and_ends_it(job, heard, qtbot, kind):
    def fail():
        yield 1
        raise kind("defect")

    with qtbot.captureExceptions() as caught:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # as for users: a warning is no error
            job.start(fail)
            wait_until(lambda: ended(heard), "the job ends", 10)
        wait_until(lambda: bool(caught), "the error comes")
    assert caught[0][0] is kind and heard == [1, "ended"]
    assert not job.running


def test_what_is_warned_of_while_a_job_runs_is_for_the_window_to_say(job, heard):
    counter = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = list(warnings.filters), warnings.showwarning
        job.start(counter.run)
        wait_until(lambda: len(heard) > 3, "events come")
        assert (list(warnings.filters), warnings.showwarning) == before
        job.cancel()
        wait_until(lambda: not job.running, "the job ends")
        assert (list(warnings.filters), warnings.showwarning) == before


def test_nothing_comes_after_a_cancel_but_the_end(job, heard):
    counter = Counter()
    job.start(counter.run)
    wait_until(lambda: len(heard) > 3, "events come")
    job.cancel()
    before = len(heard)
    wait_until(lambda: not job.running, "the job ends")
    assert heard[before:] == ["ended"]


def test_results_of_an_earlier_run_are_dropped(job, heard):
    first, second = Counter(), Counter()
    job.start(first.run)
    wait_until(lambda: len(heard) > 3, "events come")
    job.cancel()
    wait_until(lambda: not job.running, "the job ends")
    heard.clear()
    job.start(second.run)
    wait_until(lambda: len(heard) > 3, "events come")
    assert heard[:3] == [0, 1, 2]


def test_a_pause_holds_the_work_and_a_resume_lets_it_go_on(job, heard):
    counter = Counter()
    job.start(counter.run)
    wait_until(lambda: len(heard) > 3, "events come")
    job.pause()
    live(0.1)
    held = counter.at
    live(0.2)
    assert counter.at == held and job.paused
    job.resume()
    wait_until(lambda: counter.at > held + 3, "it goes on")
    assert not job.paused


def test_a_resume_right_after_a_pause_wins(job, heard):
    counter = Counter()
    job.start(counter.run)
    wait_until(lambda: len(heard) > 3, "events come")
    job.pause()
    job.resume()
    live(0.1)
    seen = counter.at
    wait_until(lambda: counter.at > seen + 3, "it goes on")


def test_a_paused_job_can_be_cancelled(job, heard):
    counter = Counter()
    job.start(counter.run)
    wait_until(lambda: len(heard) > 3, "events come")
    job.pause()
    live(0.1)
    job.cancel()
    wait_until(lambda: ended(heard), "the job ends")


def test_after_shutdown_not_even_the_end_is_told(job, heard):
    counter = Counter()
    job.start(counter.run)
    wait_until(lambda: len(heard) > 3, "events come")
    job.shutdown()
    heard.clear()
    live(0.2)
    stopped = counter.at
    live(0.1)
    assert heard == [] and counter.at == stopped


def test_a_function_runs_elsewhere_and_its_result_comes_home(background):
    results = []

    def work(value):
        return value, threading.get_ident()

    background.run(work, 5, done=lambda r: results.append((*r, threading.get_ident())))
    wait_until(lambda: bool(results), "the result comes")
    value, there, here = results[0]
    assert value == 5 and there != here == threading.get_ident()


def test_bad_input_in_the_background_is_shown_and_tells_the_caller(background, monkeypatch):
    shown, failed = [], []
    monkeypatch.setattr("napari_volseg.widgets.jobs.show_warning", shown.append)

    def refuse():
        raise InputError("no such file")

    background.run(refuse, done=lambda _: None, failed=lambda: failed.append(True))
    wait_until(lambda: bool(failed), "the failure comes")
    assert shown == ["no such file"]


def test_a_defect_in_the_background_is_not_hidden(background, qtbot):
    def fail():
        raise KeyError("defect")

    with qtbot.captureExceptions() as caught:
        background.run(fail, done=lambda _: None)
        wait_until(lambda: bool(caught), "the error comes")
    assert caught[0][0] is KeyError


def test_what_is_being_written_at_shutdown_is_finished_but_not_delivered(background):
    go, done, delivered = threading.Event(), threading.Event(), []

    def write():
        go.wait(30)
        done.set()

    background.run(write, done=delivered.append)
    background.shutdown()
    go.set()
    assert done.wait(30)
    live(0.05)
    assert delivered == []
