"""A photo in, a verdict out: faces, the classifier on torch or ONNX Runtime.

Nothing is imported here, so that the ONNX path starts without torch: import `hf_smile.inference.classifier`.
"""
