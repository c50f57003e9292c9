"""What inference runs on: TensorFlow, or a program of the net in LiteRT or ONNX Runtime."""
