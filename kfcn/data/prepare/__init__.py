"""Record files of a data set, written once and trained from many times."""
