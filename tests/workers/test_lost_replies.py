"""Transactions that the server has applied and whose reply does not arrive."""

from __future__ import annotations

from typing import Any

import redis
import worker_jobs
from redis.backoff import NoBackoff
from redis.retry import Retry as NetworkRetry
from rq import Retry

from flowq.runtime.queue import Queue
from flowq.workers.address import Address, address_of
from flowq.workers.child.rq_work import RQWork
from flowq.workers.messages import Settings, Task, failed
from flowq.workers.redis_side import Capacity, RedisSide


class LosesReplies(redis.UnixDomainSocketConnection):
    """The first transaction is applied, and then the connection breaks."""

    losses_left = 1
    _is_transaction = False

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send it, and note whether a transaction ends with it."""
        chunks = command if isinstance(command, list) else [command]
        self._is_transaction = b"\r\nEXEC\r\n" in b"".join(chunks)
        super().send_packed_command(command, check_health)

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read the reply, and lose that of the first transaction."""
        if self._is_transaction and LosesReplies.losses_left:
            LosesReplies.losses_left -= 1
            self._is_transaction = False
            self.disconnect()
            raise redis.ConnectionError("connection reset by peer")
        return super().read_response(*arguments, **options)


def test_a_job_that_is_to_be_retried_is_queued_once_when_the_reply_is_lost(queue: Queue) -> None:
    job = queue.enqueue(worker_jobs.fail, retry=Retry(max=2))
    redis_side = RedisSide(queue.connection, "w", ["default"], 30)
    [claim] = redis_side.turn([], Capacity(1, 1, 1)).claims
    address = address_of(queue.connection)
    options = {**address.options, "retry": NetworkRetry(NoBackoff(), 3)}  # as redis.Redis(…) has
    breaking = Address(address.redis_class, LosesReplies, options)
    end = failed(claim.number, "it has failed", 0.0, 1.0, how="conclude")
    RQWork(Settings("w", breaking), breaking.connect()).conclude(Task._make(claim.message), end)
    assert not LosesReplies.losses_left
    assert queue.job_ids == [job.id]
    assert not redis_side.find_unknown([])


class TakesNoTransactions(redis.UnixDomainSocketConnection):
    """It breaks when one is to be sent."""

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send anything else."""
        chunks = command if isinstance(command, list) else [command]
        if b"\r\nEXEC\r\n" in b"".join(chunks):
            raise redis.ConnectionError("connection reset by peer")
        super().send_packed_command(command, check_health)


def test_the_digest_of_a_jobs_code_is_written_with_its_end_or_not_at_all(queue: Queue) -> None:
    job = queue.enqueue(worker_jobs.fail, retry=Retry(max=1))
    queue.connection.hset(job.key, "flowq_run", "r-1")
    [claim] = RedisSide(queue.connection, "w", ["default"], 30).turn([], Capacity(1, 1, 1)).claims
    address = address_of(queue.connection)
    breaking = Address(address.redis_class, TakesNoTransactions, address.options)
    end = failed(claim.number, "it has failed", 0.0, 1.0, how="conclude")._replace(code="abc")
    RQWork(Settings("w", breaking), breaking.connect()).conclude(Task._make(claim.message), end)
    assert queue.connection.hget(job.key, "flowq_code") is None
    RQWork(Settings("w", address), address.connect()).conclude(Task._make(claim.message), end)
    assert queue.connection.hget(job.key, "flowq_code") == b"abc"
    assert queue.job_ids == [job.id]
