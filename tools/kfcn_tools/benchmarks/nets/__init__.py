"""The nets that `kfcn_tools.benchmarks.peers` compares, each in a process of its own."""
