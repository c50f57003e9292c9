"""Benchmarks, each run as `python -m kfcn_tools.benchmarks.NAME`."""
