"""The commands: one file each, argparse and printing only; the work stands in the library."""
