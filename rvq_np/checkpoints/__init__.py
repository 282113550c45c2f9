"""Codebooks of published models: one file per family, named after it.

The contract of a file here, with the family's name for its name:

``matches(names) -> bool``
    Whether a checkpoint with these tensor names is of the family.
``build(tensors, config) -> Codebooks``
    The quantizer, from the tensors of the file and the JSON config beside it, if there is one.

A pickle is never opened: ``.pt``, ``.pth``, ``.th`` and ``.bin`` files can run code.  No family
is here yet.  For models of this library see `rvq_np.ResidualVectorQuantizer.save`; for a state
under ESPnet's names, `rvq_np.ResidualVectorQuantizer.load_state_dict`.
"""
