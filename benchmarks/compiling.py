"""What reading, checking and planning a large YAML workflow costs, for several shapes of graphs.

    python benchmarks/compiling.py [--sizes 1000 10000 100000] [--shapes chain layered]

Each workflow is written to a file and compiled in a process of its own. Figures: CPU seconds (user
and system, of that process alone, so that a busy machine does not matter) for reading the file,
checking it with its functions imported, and planning; how many times longer the largest size takes
than the one before, which should be the ratio of the sizes; and the most memory that the process
ever had. `start` is what the interpreter and the imports cost before that, once.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

HEADER = "inputs: {folder: {default: data}}\njobs:\n"
CALL = "    call: builtins:dict\n"
Figures = dict[str, float]
T = TypeVar("T")


def chain(size: int) -> Iterator[str]:
    """Each job needs the one before it."""
    for number in range(size):
        yield f"  job{number}:\n{CALL}"
        yield f"    needs: job{number - 1}\n" if number else ""


def fan_in(size: int) -> Iterator[str]:
    """All jobs block the last one, which stands first."""
    yield f"  last:\n    deferred: true\n{CALL}"
    for number in range(size - 1):
        yield f"  job{number}:\n{CALL}    blocks: last\n"


def layered(size: int) -> Iterator[str]:
    """Layers of a hundred jobs; each needs three of the layer before."""
    dice = random.Random(1)
    for number in range(size):
        yield f"  job{number}:\n{CALL}"
        first = number // 100 * 100 - 100
        if first >= 0:
            needed = ", ".join(f"job{n}" for n in dice.sample(range(first, first + 100), 3))
            yield f"    needs: [{needed}]\n"


def arguments(size: int) -> Iterator[str]:
    """Layers of a hundred jobs with arguments: an input, a text with one, a result, plain data."""
    for number in range(size):
        yield f"  job{number}:\n{CALL}    with:\n"
        yield f'      source: "${{{{ inputs.folder }}}}/part-{number}.csv"\n'
        yield "      folder: ${{ inputs.folder }}\n      options: {level: 3, names: [a, b]}\n"
        if number >= 100:
            yield f"      before: ${{{{ jobs.job{number - 100}.result }}}}\n"


def shell(size: int) -> Iterator[str]:
    """Shell commands, each with the last line of another one in it."""
    for number in range(size):
        before = f" ${{{{ jobs.job{number - 100}.result }}}}" if number >= 100 else ""
        yield f'  job{number}:\n    run: make "$FOLDER/part-{number}"{before}\n'
        yield '    env: {FOLDER: "${{ inputs.folder }}"}\n    timeout: 10m\n'


SHAPES: dict[str, Callable[[int], Iterator[str]]] = {
    each.__name__: each for each in (chain, fan_in, layered, arguments, shell)
}


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(compile_one(options.one)))
        return
    print(f"{'shape':<10} {'jobs':>7} {'start':>6} {'read':>6} {'check':>6} {'plan':>6}", end=" ")
    print(f"{'together':>8} {'ratio':>5} {'MB':>5}")
    for shape in options.shapes:
        report(shape, options.sizes)


def report(shape: str, sizes: list[int]) -> None:
    """Print the lines of one shape."""
    before = 0.0
    for size in sizes:
        figures = measure(shape, size)
        together = figures["read"] + figures["check"] + figures["plan"]
        cells = [f"{figures[name]:>6.2f}" for name in ("start", "read", "check", "plan")]
        ratio = f"{together / before:>5.1f}" if before else " " * 5
        print(f"{shape:<10} {size:>7}", *cells, f"{together:>8.2f} {ratio} {figures['mb']:>5.0f}")
        before = together


def measure(shape: str, size: int) -> Figures:
    """Return the figures of one workflow, compiled in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{shape}.yaml"
        file.write_text(HEADER + "".join(SHAPES[shape](size)), encoding="utf-8")
        command = [sys.executable, __file__, "--one", str(file)]
        answer = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    figures: Figures = json.loads(answer)
    return figures


def compile_one(file: str) -> Figures:
    """Return what one file costs, phase by phase."""
    from flowq import compiling  # noqa: PLC0415 - its import is a part of `start`
    from flowq.declare.nodes import collector_paused  # noqa: PLC0415
    from flowq.graph import build_graph  # noqa: PLC0415
    from flowq.planner import make_plan  # noqa: PLC0415

    figures = {"start": time.process_time()}
    workflow = phase(figures, "read", lambda: compiling.load(file))
    problems = phase(figures, "check", lambda: compiling.find_problems(workflow))
    assert all(problem.severity == "warning" for problem in problems), problems
    with collector_paused():
        graph = build_graph(workflow)  # `check` has it in its figure
        phase(figures, "plan", lambda: make_plan(graph, {"folder": "data"}, "a1b2c3d4e5f6"))
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**figures, "mb": kilobytes / (1024 if sys.platform != "darwin" else 1024**2)}


def phase(figures: Figures, name: str, work: Callable[[], T]) -> T:
    """Do something, and note its CPU seconds."""
    began = time.process_time()
    result = work()
    figures[name] = time.process_time() - began
    return result


if __name__ == "__main__":
    main()
