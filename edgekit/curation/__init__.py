"""Rows before training: checks, splits, and rows or answers that a teacher writes.

``samples`` says when two questions are the same and ``similar`` when they are nearly so; ``check`` finds what is wrong
with a data set, ``split`` keeps evaluation rows apart, ``teacher`` asks a larger model, ``generate`` and ``label`` let
it write rows and answers into a ``row_file``.
"""
