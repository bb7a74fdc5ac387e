"""The version, alone, so that packaging can read it without importing flowq."""

__version__ = "0.1.0"
