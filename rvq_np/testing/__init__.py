"""For proving a residual quantizer right, ours or anybody's; shipped, not hidden in ``tests/``.

`oracle` answers what the codes and vectors of the definition are, slowly and exactly, in pure
Python; it imports nothing of ours, so it cannot share a mistake with us.  `strategies` draws the
cases that break quantizers (needs ``rvq-np[test]``), and says of each why it is drawn.

>>> from rvq_np.testing import oracle
>>> oracle.encode([5.0, 4.0], [[[0.0, 0.0], [4.0, 4.0]], [[0.0, 0.0], [1.0, 0.0]]])
[1, 1]
"""
