"""Straight-through gradients: one file per autograd framework, named after it.

What every shim owes, whatever the framework:

- the value is exactly ``decode(codes)``, not ``x + (q - x)``, which rounds;
- ``d quantized / d x`` is the identity, however many levels there are;
- ``project_out`` receives the true gradient of decode;
- the commitment loss pulls the encoder, at every level; the quantization loss pulls the codebook
  and never the encoder;
- codes carry no gradient.

A file here defines ``quantize(x, rvq, sample_rate, bandwidth=None)`` for arrays of its framework.
Tensor frameworks keep only the integer search opaque and write gather, sum and straight-through
natively; tape engines wrap a pair of forward and vector-Jacobian product over NumPy arrays.

No framework has its file yet.  Until then arrays of torch and JAX are served without gradients,
see `rvq_np.backends`.
"""
