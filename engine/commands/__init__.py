"""The verbs of the command line: one module a group; only here is it decided what to save."""
