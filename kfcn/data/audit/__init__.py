"""Looking at a data set before it is trained on: a quick check, the full audit, its page."""
