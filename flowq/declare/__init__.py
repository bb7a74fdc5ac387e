"""The language: reading YAML text and Python declarations into a `Workflow`, and writing it.

- `keys`: the table of all keys. Its shapes are in `shapes`, `job_shapes`, `workflow_shapes`,
  `input_shapes`, `matrices` and `retries`; `foreign` has the words of other tools.
- `document`: the one reader, from nodes to a `Workflow`. `nodes` are what it reads, `problems` what
  it notes, `positions` the positions of parts.
- YAML: `yaml` reads files and texts, `yaml_text` makes nodes, `nested` finds other workflows.
- Python: `python` has the decorators, `handles` the objects for values of a run, `options` the
  keywords for type checkers, `values` makes nodes.
- `export_yaml`, `export_python`, `schema` and `starter` write: workflows, the JSON Schema, and the
  files of `flowq init`.
"""
