"""Functions of the script that was started: the name by which workers find them, or what to do."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from redis import Redis

import flowq
from flowq import api, own_script
from flowq.callables import find_callable, name_call
from flowq.runtime import queue as queues

DECLARED = """
import flowq
class Bread: ...
flow = flowq.Workflow("first")
@flow.job
def a(): ...
@flowq.job
def b(thing=None): ...
class Maker:
    @classmethod
    def make(cls): ...
    def bake(self): ...
"""
GUARDED = """
if __name__ == "__main__":
    act()
"""
UNGUARDED = """
print("begins")
act()
"""

Run = Callable[..., ModuleType]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`run(text, file, act)`: execute a script as `__main__` of this process, with this `act`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def execute(
        text: str, name: str = "pipeline.py", act: Callable[[], object] = list, spec: str = ""
    ) -> ModuleType:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        main: Any = ModuleType("__main__")
        main.__file__, main.act = str(file), act
        if spec:
            main.__spec__ = importlib.util.spec_from_file_location(spec, file)
        sys.modules.pop("pipeline", None)
        monkeypatch.setitem(sys.modules, "__main__", main)
        exec(compile(text, str(file), "exec"), vars(main))
        return main  # type: ignore[no-any-return]

    yield execute
    for name in set(sys.modules) - before:
        del sys.modules[name]


def plan() -> object:
    return api.make_plan(sys.modules["__main__"].flow)


def test_workers_find_them_by_the_name_of_the_file_and_so_does_this_process(run: Run) -> None:
    main: Any = run(DECLARED + GUARDED, act=plan)
    assert [job.call for job in main.flow.spec()] == ["pipeline:a"]
    assert name_call(main.Maker.make) == "pipeline:Maker.make"
    assert find_callable("pipeline:b") is main.b
    assert pickle.loads(b"cpipeline\nBread\n.") is main.Bread


def test_a_module_that_was_started_by_name_has_that_name(run: Run) -> None:
    main = run(DECLARED + GUARDED, "shop/jobs.py", plan, spec="shop.jobs")
    assert name_call(main.b) == "shop.jobs:b"


@pytest.mark.parametrize(
    ("file", "spec", "said"),
    [
        ("my-script.py", "", "no module can be called my-script.py; rename the file"),
        ("script", "", "no module can be called script; rename the file"),
        ("random.py", "", "the name random already means a module of Python; rename"),
        ("pytest.py", "", r"the name pytest already means .*__init__.py; rename the file"),
        ("far/away.py", "", "its folder is not on sys.path .*; move it to a module beside"),
        ("far/__main__.py", "__main__", "would look for it in their own; move it to a module"),
    ],
)
def test_a_script_that_cannot_be_imported_is_refused_with_what_to_do(
    run: Run, file: str, spec: str, said: str
) -> None:
    main = run(DECLARED, file, spec=spec)
    with pytest.raises(flowq.UsageError, match=f"b cannot be enqueued: b is defined in .*{said}"):
        main.b.enqueue()
    with pytest.raises(flowq.WorkflowInvalid, match="FQ601 job a calls what workers cannot import"):
        main.flow.spec()


def test_what_was_typed_in_is_refused_with_what_to_do(run: Run, connection: Redis) -> None:
    """In a notebook, the REPL, `python -c` and after `python -i script.py`."""
    queue, main = flowq.Queue(connection=connection), run(DECLARED)
    exec("def c(): ...", vars(main))
    said = "c was typed into a session or notebook, .* into a file beside it, such as tasks.py"
    with pytest.raises(flowq.UsageError, match=said):
        queue.enqueue(main.c)
    del main.__file__
    with pytest.raises(flowq.UsageError, match="b was typed into a session or notebook"):
        queue.enqueue(main.b)
    assert queue.count == 0


def test_a_script_from_standard_input_is_told_to_become_a_file(run: Run) -> None:
    main = run(DECLARED)
    main.__file__ = "<stdin>"
    exec(compile("def c(): ...", "<stdin>", "exec"), vars(main))
    reason = "c is defined in the script that was started, and that was read from standard input"
    assert own_script.explain(main.c) == (reason, "save it as a file, as in my_script.py")


def test_in_a_session_after_a_script_its_functions_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text(DECLARED + "from flowq import own_script\n")
    typed = (
        "print(own_script.find_name(b), own_script.refuse_unguarded(['pipeline:b']))\n"
        "def c(): ...\n\nprint(own_script.explain(c)[0])\n"
    )
    command = [sys.executable, "-i", "pipeline.py"]
    said = subprocess.run(
        command, input=typed, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == [
        "pipeline None",
        "c was typed into a session or notebook, and workers import from files",
    ], said.stderr


def test_a_script_whose_import_would_submit_again_is_refused_before_anything_is_enqueued(
    run: Run, connection: Redis
) -> None:
    def act() -> None:
        main: Any = sys.modules["__main__"]
        queue = flowq.Queue(connection=connection)
        calls: list[Callable[[], object]] = [
            lambda: flowq.submit(main.flow),
            lambda: main.b.options(connection=connection).enqueue(),
            lambda: queue.enqueue(main.b),
            lambda: queue.enqueue_call(main.b),
            lambda: queue.create_job(main.b),
            lambda: queue.prepare_data(main.b),
            lambda: queue.enqueue("time.time", on_failure=flowq.Callback(main.b)),
        ]
        for call in calls:
            with pytest.raises(flowq.UsageError, match=r"execute this \(line 15\) again: put what"):
                call()
        assert queue.enqueue("time.time").origin == "default"  # of other modules

    before = queues.remember(connection)
    run(DECLARED + UNGUARDED, act=act)
    queues.remember(before)
    assert flowq.Queue(connection=connection).count == 1
    assert flowq.runs(connection=connection) == []


def test_what_is_defined_below_the_guard_is_refused(run: Run) -> None:
    main = run("if __name__ == '__main__':\n    import flowq\n    @flowq.job\n    def a(): ...\n")
    with pytest.raises(flowq.UsageError, match=r"is defined below .*; move it above"):
        main.a.enqueue()


def test_in_a_thread_after_its_end_a_script_needs_a_guard_somewhere(run: Run) -> None:
    run(DECLARED + GUARDED)
    own_script.refuse_unguarded(["pipeline:b"])
    run(DECLARED)
    with pytest.raises(flowq.UsageError, match=r"would execute this again: put"):
        own_script.refuse_unguarded(["pipeline:b"])
    own_script.refuse_unguarded(["other:b"])


def test_objects_of_its_classes_and_its_objects_are_refused_as_arguments(
    run: Run, connection: Redis
) -> None:
    def act() -> None:
        main: Any = sys.modules["__main__"]
        queue = flowq.Queue(connection=connection)
        with pytest.raises(flowq.Unserializable, match=r"argument 2: an object of Bread.*; move"):
            queue.enqueue(main.b, "__main__", main.Bread(), job_id="a")
        with pytest.raises(flowq.UsageError, match="belongs to one object"):
            queue.enqueue(main.Maker().bake)
        assert queue.enqueue(main.b, ["__main__", "Bread"]).args == (["__main__", "Bread"],)

    run(DECLARED + GUARDED, act=act)


THREADED = """
def submit_in_thread():
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
"""


@pytest.mark.parametrize("begin", ["act()", "submit_in_thread()"])
@pytest.mark.parametrize(
    ("text", "is_accepted"),
    [
        ("if __name__ == '__main__':\n    BEGIN", True),
        ("if '__main__' == __name__: BEGIN", True),
        ("if __name__ != '__main__':\n    pass\nelse:\n    BEGIN", True),
        ("if not __name__ == '__main__':\n    pass\nelse:\n    BEGIN", True),
        ("if __name__ == '__main__' and flow:\n    BEGIN", True),
        ("if __name__ != '__main__' or not flow:\n    pass\nelse:\n    BEGIN", True),
        ("if not flow: pass\nelif __name__ == '__main__':\n    BEGIN", True),
        ("try:\n    if __name__ == '__main__':\n        BEGIN\nfinally: pass", True),
        ("BEGIN\nif __name__ == '__main__':\n    pass", False),
        ("if __name__ == '__main__':\n    pass\nBEGIN", False),
        ("if __name__ == 'other':\n    pass\nelse:\n    BEGIN", False),
        ("if __name__ == '__main__' or flow:\n    BEGIN", False),
        ("if not (__name__ == '__main__' and not flow):\n    BEGIN", False),
        ("if __name__ != 'imported':\n    BEGIN", False),
        ("if __name__:\n    BEGIN", False),
        ("if flow != '__main__':\n    BEGIN", False),
    ],
)
def test_what_only_the_started_script_executes_is_guarded_also_in_a_thread(
    run: Run, text: str, is_accepted: bool, begin: str
) -> None:
    said: list[str] = []

    def act() -> None:
        try:
            own_script.refuse_unguarded(["pipeline:b"])
            said.append("accepted")
        except flowq.UsageError as error:
            said.append(str(error))

    run(
        f"import threading\n{DECLARED}{THREADED}flow.spec()\n{text.replace('BEGIN', begin)}",
        act=act,
    )
    assert len(said) == 1
    assert (said[0] == "accepted") is is_accepted
    assert is_accepted or "would execute this (line " in said[0]
