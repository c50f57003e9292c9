"""Data sets, one a module; `kfcn.data.catalog` is their table."""
