"""From few labels to a good net: what to label next, and which labels are wrong."""
