"""The container for codes, ``.rvq``: what it has to keep.

Little-endian; magic and version; levels and the size of each codebook as any integer; shape and
layout; the frame rate as a rational; the fingerprint of the codebooks (`rvq_np.Codebooks`); then
chunks, each with its length and a CRC32, level by level inside, so that a prefix of levels is a
prefix of bytes.  A reader returns the codes or raises an error of ours: never garbage, never a
crash, bounded memory.  A dropped code is told from code 0.  Writes are atomic, as in `modelfile`.

The format is not written yet; until it is, ``rvq-np encode`` writes codes as ``.npy``.
"""
