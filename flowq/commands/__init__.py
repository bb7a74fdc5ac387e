"""Commands as texts for a shell: where values may stand in them, and how they get there.

No value is part of the text that a shell reads. It is a variable of that shell, and the text holds
a reference to it. `places` decides where an expression may stand, once, when a workflow is checked
and planned; `flows` follows a value from there to what reads it as code; `programs` knows what
builtins and programs do with their arguments; `trees` asks the grammar; `values` makes the text and
the variables where the job runs. Nothing else in flowq quotes for a shell that runs a job.
"""
