"""What tests of the codec share."""

import numpy as np
import pytest

from rvq_np.errors import (
    RvqError,
)

CODEWORDS = np.float32([[[0, 0], [4, 4], [9, 9]], [[0, 0], [1, 0], [0, 1]]])


def refused(error, builtin, message, call, *arguments, **options):
    with pytest.raises(error, match=message) as caught:
        call(*arguments, **options)
    assert isinstance(caught.value, RvqError)
    assert isinstance(caught.value, builtin)


X = np.ones((4, 2), np.float32)
