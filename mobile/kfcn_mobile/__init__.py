"""The proof on the device: label maps of `.tflite` files against those of the Keras model.

This folder and a bundle are all that a device needs: it imports LiteRT, NumPy and Pillow only.
"""
