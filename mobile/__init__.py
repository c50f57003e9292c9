"""The proof on the device: LiteRT, NumPy and Pillow only."""
