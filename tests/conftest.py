import os

# Before TensorFlow is imported anywhere: its start-up notes bury the test output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
