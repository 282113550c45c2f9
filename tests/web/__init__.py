"""Exported ONNX graphs run in onnxruntime-web, in Node: ``python -m web``, in `tests`.

Needs Node, and ``npm install onnxruntime-web@1.30.0`` in a folder, which ``--modules`` names.  The
graphs are those of codecs at their published sizes, with random codebooks.
"""
