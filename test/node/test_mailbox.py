from __future__ import annotations

import threading
import time

from d2_ros.node.mailbox import Mailbox, Worker


def test_newest_item_wins_and_the_replaced_one_is_reported() -> None:
    box: Mailbox[int] = Mailbox()
    assert box.put("a", 1) is None
    assert box.put("a", 2) == "overwritten"
    assert box.full("a")
    assert box.take() == ("a", 2)
    assert not box.full("a")


def test_the_camera_that_waits_longest_is_served_first() -> None:
    box: Mailbox[int] = Mailbox()
    box.put("slow", 1)
    for item in range(5):
        box.put("fast", item)
    box.put("slow", 2)
    assert [box.take(), box.take()] == [("slow", 2), ("fast", 4)]


def test_close_wakes_who_waits_and_drops_what_waits() -> None:
    box: Mailbox[int] = Mailbox()
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(box.take()))
    thread.start()
    box.close()
    thread.join(5)
    assert taken == [None]
    assert box.put("a", 1) == "stopped"
    assert box.take() is None


def test_close_tells_whose_items_it_drops() -> None:
    box: Mailbox[int] = Mailbox()
    box.put("b", 1)
    box.put("a", 2)
    assert box.close() == ["b", "a"]
    assert box.closed
    assert box.close() == []


def test_worker_frees_the_slot_before_it_handles_the_item() -> None:
    box: Mailbox[int] = Mailbox()
    order: list[str] = []
    done = threading.Event()

    def handle(camera: str, item: int) -> None:
        order.append(f"handle {camera} {item} full={box.full(camera)}")
        done.set()

    worker = Worker(box, handle, lambda: order.append("free"))
    box.put("a", 7)
    assert done.wait(5)
    worker.stop(5)
    assert order == ["free", "handle a 7 full=False"]


def test_stop_waits_for_the_item_at_hand_and_leaves_no_thread() -> None:
    box: Mailbox[int] = Mailbox()
    started, finished = threading.Event(), threading.Event()

    def handle(camera: str, item: int) -> None:
        started.set()
        time.sleep(0.1)
        finished.set()

    worker = Worker(box, handle, lambda: None)
    box.put("a", 1)
    assert started.wait(5)
    assert worker.stop(5) == []
    assert finished.is_set()
    assert not any(t.name == "d2_frontend_worker" for t in threading.enumerate())


def test_stop_does_not_wait_for_ever() -> None:
    box: Mailbox[int] = Mailbox()
    started, gate = threading.Event(), threading.Event()

    def handle(camera: str, item: int) -> None:
        started.set()
        gate.wait(5)

    worker = Worker(box, handle, lambda: None)
    box.put("a", 1)
    assert started.wait(5)
    box.put("a", 2)
    before = time.monotonic()
    assert worker.stop(0.1) == ["a"]
    assert time.monotonic() - before < 2
    gate.set()
    worker.join()
    assert not any(t.name == "d2_frontend_worker" for t in threading.enumerate())
