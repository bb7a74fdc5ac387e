"""A workflow language for deferred job graphs on RQ."""
