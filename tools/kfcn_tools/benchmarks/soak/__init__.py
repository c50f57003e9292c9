"""Whether a long run grows: threads, open files, memory and disk, read while it goes on.

Run as `python -m kfcn_tools.benchmarks.soak one replicas workers predict evaluate serve`. Each is a
run of the command that a person starts, on drawn pictures, watched from outside by what Linux says
of its processes. The table has a row for every hundred steps or every fiftieth of the rest. Flat
means that, after the first 200 steps, pictures or requests (or the first fifth of fewer than 600),
no more threads and files are open than `SPARE` above what there was then, and that memory is within
`MEMORY` of it.
"""
