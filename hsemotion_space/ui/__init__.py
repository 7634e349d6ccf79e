"""The page. Imports no torch; analyses run in the worker of :mod:`hsemotion_space.jobs`."""
