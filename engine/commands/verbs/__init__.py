"""The verbs, their options and the equation each computes: one module a group.

Light, so that ``--help`` is quick.
"""
