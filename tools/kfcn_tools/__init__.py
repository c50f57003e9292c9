"""From a kfcn model to what a device runs, and the benchmarks."""
