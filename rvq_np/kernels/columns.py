"""The columns of the tables that every engine reads: `tables.Tables.bounds`, one row a stage.

Names instead of bare numbers, in the order of the columns.  Engines with tables of their own have a
file of this name, too; Numba takes the numbers for constants when it compiles.
"""

BOUNDS = (
    LARGEST_NORM,  # of the norms of the codewords
    LARGEST_HALF,  # of their half squared norms
    SHARE,  # what a score in T may be off, a share of the numbers involved, g(m)
    LEAST,  # and where products underflow, m * tiny
    WIDE_SHARE,  # the same of a score in float64
    WIDE_LEAST,
    OVERFLOW,  # above this, T may overflow
) = range(7)
