"""Quantisation to 8 bits: ranges, corrections, and which layers stay in float."""
