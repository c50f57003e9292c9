"""Files of labels and pictures, one format a module."""
