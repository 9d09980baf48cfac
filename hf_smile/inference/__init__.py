"""Prediction: faces, the classifier on torch or ONNX Runtime.

This package imports nothing, so that prediction with ONNX starts without torch: import `hf_smile.inference.classifier`.
"""
