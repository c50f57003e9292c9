"""From a trained net to a bundle of `.tflite` files."""
