"""Commands as texts for a shell: where values may stand in them, and how they get there.

The text that a shell reads contains no values. Each value is a variable of that shell, and the text
refers to it.

- `places` decides where an expression may stand, when a workflow is checked and planned.
- `flows` finds what a command reads as code, and `sources` what values get there.
- `programs` knows what builtins and programs do with their arguments.
- `trees` reads the syntax tree.
- `values` makes the text and the variables where the job runs. Nothing else in flowq quotes for a
  shell that runs a job.
"""
