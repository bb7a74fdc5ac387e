"""The code of RQ that flowq overrides, copies or relies on: read it again when RQ changes.

A test compares each digest with the installed RQ (tests/house/test_rq.py), so a new RQ fails by
name. Nothing imports this at work.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Reliance(NamedTuple):
    """Code of RQ's that flowq relies on. `digest`: the first digits of the sha256 of its source.

    Shape: `places` in flowq that override, copy or count on it, as `file` or `file:name`.
    """

    source: str
    digest: str
    places: tuple[str, ...]


def _read_reliances(table: str) -> tuple[Reliance, ...]:
    rows = (entry.split() for entry in re.split(r"\n(?=\S)", table.strip()))
    return tuple(Reliance(source, digest, tuple(places)) for source, digest, *places in rows)


RELIED_ON = _read_reliances("""\
rq.job.Job.__init__ 94811c731ae32af0
    runtime/job.py:Job runtime/enqueueing.py:JobTemplate workers/child/restore.py:Restorer
rq.job.Job.create dcdde04c5a0562de
    runtime/enqueueing.py:Copier runtime/planned.py:_write_call
rq.job.Job.restore 859daf950a3ede0b
    runtime/job.py:restore workers/child/restore.py:Restorer
rq.job.Job.to_dict 9e1a56a9cd4b57e5
    runtime/enqueueing.py:make_entry runtime/planned.py:describe runtime/lua/add.lua
    workers/child/restore.py:Restorer
rq.job.Job.data 7b6b6e3c008b4eb5
    runtime/rq.py:data runtime/rq.py:impersonate runtime/enqueueing.py:Copier
    runtime/planned.py:_write_call workers/child/restore.py:Restorer
rq.job.Job.id ec6ba95f0a5e83db
    runtime/rq.py:given_id runtime/enqueueing.py:copy
rq.job.Job.func 2347dd5ec6918732
    runtime/rq.py:func
rq.job.Job._execute 653df714a38f7818
    runtime/rq.py:_execute runtime/rq.py:_call
rq.job.Job.perform c8f482e08e17d34c
    runtime/rq.py:_execute workers/child/execute.py:Executor
rq.job.Job.get_status dc5acc235108e53f
    runtime/job.py:get_status
rq.job.Job.set_status a093b9649641e3ea
    runtime/job.py:set_status runtime/lua/settling.lua
rq.job.Job.prepare_for_execution 4e8e0eca634da20b
    runtime/job.py:prepare_for_execution runtime/lua/attempts.lua
rq.job.Job.get_result_ttl ad6db88d400dcd15
    runtime/job.py:get_result_ttl
rq.job.Job.cleanup 16734aeb1eeab579
    runtime/job.py:delete
rq.job.Job.delete 1a15005871aa9579
    runtime/job.py:delete
rq.job.Job.cancel 226071baca070f37
    runtime/job.py:cancel runtime/lua/turn_ends.lua
rq.job.Job.requeue 8f8d676e4cbe1b89
    runtime/lua/attempts.lua
rq.job.Job.retry 4a0f7cec2323d8a5
    runtime/rq.py:retry runtime/job.py:set_status workers/child/execute.py:_fails_by_rq
rq.job.Job.get_retry_interval c339cc6fc527e4b2
    runtime/attempts.py:get_retry_interval runtime/policies.py:_list_pauses
rq.job.Job.should_retry cf765572a37a3d7e
    runtime/attempts.py:should_retry workers/child/execute.py:_fails_by_rq
    workers/claims.py:needs_rq
rq.job.Job._handle_success 35b96f8229b6053d
    runtime/rq.py:_handle_success runtime/job.py:set_status runtime/lua/turn_ends.lua
rq.job.Job._handle_failure 3b947507f2023ef9
    runtime/rq.py:_handle_failure runtime/job.py:set_status runtime/lua/turn_ends.lua
rq.job.Job._handle_retry_result 9fe7cffb744aac9d
    runtime/rq.py:_handle_retry_result runtime/job.py:set_status
    workers/child/rq_work.py:_conclude_success
rq.job.Job.process_dependencies 451f1033b90b716b
    runtime/rq.py:given_dependency_ids runtime/enqueueing.py:refuse_cycles
rq.job.Job.register_dependency 959436aaab7842c0
    runtime/lua/jobs.lua
rq.job.Job.dependencies_are_met d42e2e9324596919
    runtime/lua/jobs.lua
rq.queue.EnqueueData 7914acc85c53467b
    runtime/enqueueing.py:_key runtime/queue.py:HeldData
rq.queue.Queue.__init__ 44796a9afc0f3a37
    runtime/queue.py:Queue runtime/rq.py:default_timeout
rq.queue.Queue.parse_args 97d632c8a5073d4d
    runtime/queue.py:enqueue
rq.queue.Queue.prepare_data 2ed9ad0f5bc99e57
    runtime/queue.py:prepare_data
rq.queue.Queue.create_job ff1c911b7450058d
    runtime/queue.py:create_job runtime/enqueueing.py:Copier
rq.queue.Queue.enqueue 5dfc5215dd72c482
    runtime/queue.py:enqueue
rq.queue.Queue.enqueue_call 8c2a3e885c117ead
    runtime/queue.py:enqueue_call
rq.queue.Queue.enqueue_job 05ff025c22a03128
    runtime/queue.py:enqueue_job runtime/rq.py:enqueue_by runtime/lua/add.lua
rq.queue.Queue.setup_dependencies 870dcd5fb958811a
    runtime/rq.py:setup_dependencies runtime/lua/jobs.lua
rq.queue.Queue.enqueue_many 4ae661d624a6619b
    runtime/queue.py:enqueue_many
rq.queue.Queue.enqueue_at e4681e0089cf5d03
    runtime/queue.py:enqueue_at
rq.queue.Queue.enqueue_in 79ff680ce0711536
    runtime/queue.py:enqueue_in
rq.queue.Queue.schedule_job 2596db5209e04324
    runtime/queue.py:schedule_job runtime/lua/due.lua
rq.queue.Queue._enqueue_async_job 3c3efebb37300756
    runtime/lua/add.lua runtime/lua/due.lua
rq.queue.Queue._enqueue_rate_limited_job a610af91fc148871
    runtime/rq.py:enqueue_limited workers/child/rq_work.py:queue_limited
rq.queue.Queue.run_sync 82e9fbe99b33ddaf
    runtime/enqueueing.py:run_if_queued
rq.queue.Queue.move_dependents_to_ready a06f1e63311c17ae
    workers/child/rq_work.py:_conclude_success runtime/lua/turn_ends.lua
rq.queue.Queue.empty 4f75cf0722d55c04
    runtime/queue.py:empty runtime/lua/settling.lua
rq.queue.Queue.delete a9aad664a36e8c37
    runtime/queue.py:empty
rq.queue.Queue.release_maintenance_lock f7543e511d8eddb0
    runtime/queue.py:release_maintenance_lock
rq.queue.Queue._fetch_dequeued_job dccbf64962d1bbfc
    runtime/rq.py:_fetch_dequeued_job runtime/queue.py:may_begin runtime/lua/settling.lua
rq.group.Group.enqueue_many da2607829cd3658f
    runtime/queue.py:enqueue_many
rq.decorators.job.__call__ 7e379664ba556e82
    runtime/holds.py:take_hold_of_call
rq.worker.base.BaseWorker.__init__ 86f83bb69582aebb
    workers/worker.py:Worker runtime/rq.py:PerformingWorker
rq.worker.base.BaseWorker._set_connection 38ebd371028aad20
    runtime/rq.py:_set_connection
rq.worker.base.BaseWorker.register_birth 4690ab4f7b74ffb2
    workers/worker.py:_register_birth
rq.worker.base.BaseWorker.register_death cb2b0be150213a99
    workers/worker.py:_supervise
rq.worker.base.BaseWorker.heartbeat 63b1089fd146d19c
    runtime/lua/workers.lua
rq.worker.base.BaseWorker.work 04b5cdf8e554d8a2
    workers/worker.py:work
rq.worker.base.BaseWorker.clean_registries e2c9790c8156c72c
    workers/child/rq_work.py:clean_registries
rq.worker.base.BaseWorker.prepare_execution 899b4eaa689fcf35
    runtime/lua/turn_claims.lua
rq.worker.base.BaseWorker.prepare_job_execution d08dd32962e3f82a
    runtime/rq.py:prepare_job_execution runtime/lua/turn_claims.lua
rq.worker.base.BaseWorker.perform_job 1f0e40678ae519cf
    runtime/rq.py:PerformingWorker workers/child/execute.py:Executor
rq.worker.base.BaseWorker._finalize_success ef21a613e8080195
    runtime/rq.py:_finalize_success workers/child/execute.py:_succeed
rq.worker.base.BaseWorker._finalize_failure 6d1b8bd1117e9641
    runtime/rq.py:_finalize_failure workers/child/execute.py:_failure
rq.worker.base.BaseWorker.handle_exception fffd9b2925ac1432
    workers/child/execute.py:_failure
rq.worker.base.BaseWorker.handle_job_success 9dda7c7d3ca18ee6
    workers/child/rq_work.py:_conclude_success runtime/lua/turn_ends.lua
rq.worker.base.BaseWorker.handle_job_failure 7432afe53b9f84ec
    workers/child/rq_work.py:_conclude runtime/lua/turn_ends.lua
rq.worker.base.BaseWorker.handle_job_retry 541a1b09523069c2
    workers/child/rq_work.py:_conclude_success
rq.worker.worker_classes.Worker.monitor_work_horse 218a5b8f3eff05cf
    workers/monitor.py
rq.executions.Execution.__init__ 991789894557baba
    workers/child/rq_work.py:conclude
rq.executions.Execution.create b167074a0d209e85
    runtime/lua/turn_claims.lua
rq.executions.prepare_execution e8d5a964e2a10d0c
    runtime/lua/turn_claims.lua
rq.executions.cleanup_execution 629fe089b5bf9776
    runtime/lua/turn_ends.lua
rq.results.Result.save 1433b6a45f0a3cfd
    runtime/lua/turn_ends.lua workers/redis_side.py:RESULT_NUMBER
rq.results.Result.serialize fe329712c924adf8
    runtime/job.py:write_result runtime/job.py:find_kept runtime/lua/turn_ends.lua
rq.registry.BaseRegistry.add 2ae9a477b803b7db
    runtime/lua/turn_ends.lua
rq.registry.FailedJobRegistry.add f8d6dd39b765af14
    runtime/lua/turn_ends.lua
rq.registry.StartedJobRegistry.cleanup c5cd78c27fc023d6
    runtime/wip.py:WIPRegistry runtime/lua/workers.lua
rq.callbacks.execute_success_callback b019a46626bb8d57
    workers/child/execute.py:_succeed
rq.callbacks.execute_failure_callback a211adbaa743b70e
    workers/child/execute.py:_failure
rq.job_lifecycle.call_exception_handlers 37423ee26d84229c
    workers/child/execute.py:_failure
rq.job_lifecycle.record_job_failure 74724fe15e442a4e
    runtime/job.py:set_status
rq.timeouts.BaseDeathPenalty e2466980efb81666
    workers/child/timeouts.py:AlarmDeathPenalty
rq.timeouts.UnixSignalDeathPenalty c12c03756fa3cf43
    workers/child/timeouts.py:AlarmDeathPenalty
rq.timeouts.TimerDeathPenalty 233a60fedd4bc3b1
    workers/child/timeouts.py:ThreadDeathPenalty
rq.worker.base.BaseWorker.serialize 219368b12c2d438b
    workers/worker.py:serialize runtime/wip.py runtime/lua/workers.lua
rq.command.handle_command 8b5094484df45d3b
    workers/monitor.py:obey
rq.repeat.Repeat.schedule 13d90e2b498609db
    runtime/job.py:set_status
rq.scheduler.RQScheduler.acquire_locks 4d15324e1639d356
    workers/redis_side.py runtime/lua/due.lua
rq.scheduler.RQScheduler.enqueue_scheduled_jobs a31620c83110baeb
    runtime/lua/due.lua
rq.suspension.is_suspended 59141c583188a10f
    runtime/lua/turn.lua
rq.utils.utcformat c29988f57cd73de7
    runtime/scripts.py:format_instant
rq.registry.BaseRegistry.__init__ f77e06435f4f163a
    runtime/wip.py:WIPRegistry
rq.job.Job._deserialize_data 00c06178d415b147
    runtime/rq.py:_deserialize_data
rq.job.Job.success_callback 6d23cf7db33ece09
    runtime/rq.py:success_callback
rq.job.Job.failure_callback 0bccbb92ea7d8764
    runtime/rq.py:failure_callback
rq.job.Job.stopped_callback 39852cf148dc2028
    runtime/rq.py:stopped_callback
rq.serializers.resolve_serializer b7e9d7f07791306c
    runtime/unpickling.py:restrict
rq.job.Job._serialize_meta a37dc4e7809ef841
    runtime/rq.py:_serialize_meta
rq.job.Job.fetch 4c0184a10a6ca526
    runtime/job.py:fetch
rq.queue.Queue.fetch_job 063ad9f184a917dd
    runtime/queue.py:fetch_job
""")
"""After a change of RQ's: read its source, then each place, then write the new digest here."""
