"""Training of backbones and heads, and the steps of the challenge.

Every function raises :class:`~hsemotion_space.training.files.DataError`, which names the file and the reason,
for data and options that it cannot use.
"""
