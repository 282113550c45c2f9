"""Gradients of decode where codes are dropped: none goes to a codeword that was not added."""

import numpy as np
import pytest
import torch

from rvq_np.grad.torch import ResidualVectorQuantizer


@pytest.mark.parametrize("narrow", [6, 4])
def test_a_dropped_code_hands_no_gradient_on(narrow):
    torch.manual_seed(0)
    rvq = ResidualVectorQuantizer(
        6, narrow, n_q=3, bins=8, kmeans_init=False, codebook_training="gradient"
    ).eval()
    codes = torch.randint(0, 8, (3, 2, 10), dtype=torch.int32)
    codes[1:, 1] = -1

    def gradients(codes):
        rvq.zero_grad()
        vectors = rvq.decode(codes)
        vectors.square().sum().backward()
        return vectors.detach(), {name: each.grad for name, each in rvq.named_parameters()}

    found, ours = gradients(codes)
    whole, of_whole = gradients(codes[:, :1])
    first, of_first = gradients(codes[:1, 1:])
    np.testing.assert_array_equal(found, torch.cat([whole, first]))
    for name, each in ours.items():
        if each is None:  # no map in: decode does not see it
            assert "project_in" in name
            continue
        parts = [given[name] for given in (of_whole, of_first) if given[name] is not None]
        torch.testing.assert_close(each, sum(parts), msg=name)
