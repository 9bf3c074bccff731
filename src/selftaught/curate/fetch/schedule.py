"""Who is asked when: many hosts at once, each by one request at a time and not too often."""

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from heapq import heappop, heappush
from typing import NamedTuple, final

from selftaught.curate.fetch.address import Address, target
from selftaught.curate.fetch.refused import Refused
from selftaught.curate.fetch.warc import held_image
from selftaught.curate.fetch.web import Image, Web

STRIKES = 5
"""Images in a row that a host fails to give after which it is not asked for more."""


class Outcome(NamedTuple):
    """The image of an address, by its place, or why it is not had."""

    index: int
    image: Image | None
    refused: Refused | None


class _Lane:
    """The addresses of a host, asked for in their order."""

    def __init__(self, host: str):
        self.host, self.waiting = host, deque[int]()
        self.tries = self.strikes = 0
        self.closed: Refused | None = None


@final
class Schedule:
    """The addresses of a shard on their way.

    The calling thread alone decides who is next; others ask and wait for answers, so that nothing
    here needs a lock.

    Args:
        addresses: distinct ones.
        web: how they are requested.
    """

    def __init__(self, addresses: Sequence[Address], web: Web):
        self.addresses, self.web = addresses, web
        self._ready: list[tuple[float, int, _Lane]] = []
        self._running: dict[Future[Image], _Lane] = {}

    def outcomes(self) -> Generator[Outcome, None, None]:
        """What became of each address, as it comes; where the caller ends early, all is stopped."""
        lanes: dict[str, _Lane] = {}
        for index, address in enumerate(self.addresses):
            if address.refused:
                yield Outcome(index, None, Refused(address.refused))
                continue
            try:
                host = address.held.file if address.held else target(address.url).host
            except Refused as refused:
                yield Outcome(index, None, refused)
                continue
            lanes.setdefault(host, _Lane(host)).waiting.append(index)
        for lane in lanes.values():
            self._queue(lane)
        workers = ThreadPoolExecutor(self.web.asked.connections, "fetch")
        try:
            while self._ready or self._running:
                self._submit(workers)
                for future in self._finished():
                    yield from self._settle(self._running.pop(future), future)
        except BaseException:
            self.web.stop()
            raise
        finally:
            workers.shutdown(wait=False, cancel_futures=True)

    def _queue(self, lane: _Lane) -> None:
        if lane.waiting:
            order = lane.waiting[0]  # hosts that are ready at once go in the addresses' order
            heappush(self._ready, (self.web.pace.next(lane.host), order, lane))

    def _submit(self, workers: ThreadPoolExecutor) -> None:
        while self._ready and len(self._running) < self.web.asked.connections:
            if self._ready[0][0] > time.monotonic():
                break
            _, _, lane = heappop(self._ready)
            address = self.addresses[lane.waiting[0]]
            self._running[workers.submit(self._image, address)] = lane

    def _image(self, address: Address) -> Image:
        if address.held is not None:
            return held_image(address.held, address.url, self.web)
        return self.web.image(address.url)

    def _finished(self) -> set[Future[Image]]:
        """Those that are done; waits for one, or for the next host that may be asked."""
        free = len(self._running) < self.web.asked.connections
        left = max(0.0, self._ready[0][0] - time.monotonic()) if self._ready and free else None
        if not self._running:
            time.sleep(left or 0.0)
            return set()
        return wait(self._running, left, FIRST_COMPLETED).done

    def _settle(self, lane: _Lane, future: Future[Image]) -> Iterator[Outcome]:
        try:
            image = future.result()
        except Refused as refused:
            if refused.transient and self._again(lane, refused):
                self._queue(lane)
                return
            outcome = Outcome(lane.waiting.popleft(), None, refused)
        else:
            outcome = Outcome(lane.waiting.popleft(), image, None)
        yield outcome
        lane.tries = 0
        lane.strikes = lane.strikes + 1 if outcome.refused and outcome.refused.transient else 0
        if lane.closed is None and lane.strikes >= STRIKES:
            lane.closed = Refused(f"not asked: {STRIKES} before it failed", transient=True)
        if lane.closed is not None:
            yield from (Outcome(index, None, lane.closed) for index in lane.waiting)
            lane.waiting.clear()
        self._queue(lane)

    def _again(self, lane: _Lane, refused: Refused) -> bool:
        """Whether a fault is tried again; its whole host is left alone until then."""
        most = self.web.asked.max_delay
        if refused.wait > most:
            reason = f"not asked: its host wants to be left alone for more than {most:g} s"
            lane.closed = Refused(reason, transient=True)
            return False
        if lane.tries >= self.web.asked.retries:
            return False
        pause = self.web.asked.backoff * 2**lane.tries
        self.web.pace.hold(lane.host, min(max(pause, refused.wait), most))
        lane.tries += 1
        return True
