"""The nets that `kfcn_tools.bench` compares, each in a process of its own."""
