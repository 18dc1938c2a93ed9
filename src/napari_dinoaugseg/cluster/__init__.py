"""The engine on a Dask scheduler: the same protocol as on this machine. Needs the extra `cluster`."""
