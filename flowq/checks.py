"""What is wrong with a workflow: one small function per rule, all problems at once."""
