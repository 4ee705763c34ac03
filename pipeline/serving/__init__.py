"""What is shipped: export to ONNX, the runtime that serves it, its card, its latency."""
