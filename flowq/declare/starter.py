"""The files that `flowq init` writes: a commented workflow that runs, and its functions."""

from __future__ import annotations

_WORKFLOW = """\
# yaml-language-server: $schema={schema}
#
# It finds words, counts the letters of each, and reports when all are counted.
#   flowq check {name}.yaml       find mistakes; nothing is run
#   flowq graph {name}.yaml       draw it
#   flowq run {name}.yaml         run it here, on a private server
#   flowq run {name}.yaml -i greeting="good morning world"
name: {name}
description: A first workflow

inputs:
  greeting: {{type: str, default: hello world, description: Some words}}

defaults: {{timeout: 1m}}

jobs:
  report:                         # known first, run last
    call: {name}_tasks:report
    with: {{counts: "${{{{ jobs.count.results }}}}"}}

  find_words:
    call: {name}_tasks:find_words
    with: {{text: "${{{{ inputs.greeting }}}}"}}

  count:                          # one job for each word; their number is known only at run time
    for_each: ${{{{ jobs.find_words.result }}}}
    call: {name}_tasks:count_letters
    with: {{word: "${{{{ item }}}}"}}
    blocks: report                # must run before report
    retries: {{max: 2, backoff: 1s}}
    max_parallel: 4

  # publish:                      # a command, after an approval
  #   needs: report
  #   approval: true
  #   run: [echo, published]
"""

_TASKS = '''\
"""The functions of the workflow: plain Python, importable by the workers."""

from __future__ import annotations


def find_words(text: str) -> list[str]:
    return text.split()


def count_letters(word: str) -> dict[str, object]:
    return {"word": word, "letters": len(word)}


def report(counts: list[dict[str, object]]) -> str:
    return ", ".join(f"{count['word']} has {count['letters']} letters" for count in counts)
'''


def write_workflow(name: str, schema: str) -> str:
    """Return the text of a workflow file with a reference to its schema."""
    return _WORKFLOW.format(name=name, schema=schema)


def write_tasks() -> str:
    """Return the code of the functions that the workflow calls."""
    return _TASKS
