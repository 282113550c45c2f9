"""The columns of the tables that encode.cu reads, as stage.cuh names them."""

WHOLE = (  # (Q, 5) int64, a row a stage
    SIZE,  # codewords
    CODEWORDS_AT,  # where the stage begins in the codewords of all stages
    SCREEN_AT,  # in those in half precision
    HALF_AT,  # in their half squared norms
    CENTRE_AT,  # in the mean codewords
) = range(5)

REAL = (  # (Q, 4) float64, a row a stage, all after scaling
    UNIT,  # the power of two that codewords are scaled by
    LARGEST,  # of their norms
    REST,  # of the norms of what rounding took from them
    HALF,  # of half their squared norms
) = range(4)
