"""Faults of the gradients: of the products by hand, and of what the frameworks differentiate."""

from ._fault import Fault

GRAD = "tests/test_grad.py"
SLOPES = f"{GRAD}::test_products_are_the_slopes_of_the_surrogate"
TORCH = "tests/peers/test_grad_torch.py"
STEP = f"{TORCH}::test_a_step_has_the_values_gradients_and_state_of_the_class"
WEIGHTS = "tests/peers/test_grad_weights.py"
PRODUCTS, SURROGATE = "rvq_np/grad/_products.py", "rvq_np/grad/_surrogate.py"

FAULTS = (
    Fault(
        "products: every level passes the identity on",
        PRODUCTS,
        "to_x += self._through(rows, to_rows)",
        "to_x += len(self.codes) * self._through(rows, to_rows)",
        SLOPES,
    ),
    Fault(
        "products: the commitment of deeper levels is lost",
        PRODUCTS,
        "ops.add_scaled(to_x, pull, 1.0)",
        "ops.add_scaled(to_x, pull, 0.0)",
        f"{GRAD}::test_the_commitment_reaches_every_level",
    ),
    Fault(
        "products: the codebook loss reaches the encoder",
        PRODUCTS,
        "penalty=self.weight * penalty,\n",
        "penalty=self.weight * penalty + quantization_loss,\n",
        SLOPES,
    ),
    Fault(
        "products: project_out has no gradient",
        PRODUCTS,
        "given.T @ moved + total[:, None] * into[1]",
        "0 * given.T @ moved",
        SLOPES,
    ),
    Fault(
        "products: project_in has the commitment only",
        PRODUCTS,
        "to_searched = ops.product(given, out[0], pull, 1.0, 1.0)",
        "to_searched = pull",
        SLOPES,
    ),
    Fault(
        "products: padding receives a gradient",
        PRODUCTS,
        "rows_of(NUMPY, given).astype(rows.dtype) * (self.active > 0)[:, None]",
        "rows_of(NUMPY, given).astype(rows.dtype)",
        f"{GRAD}::test_what_padding_holds_reaches_no_gradient",
    ),
    Fault(
        "products: the rotation is not transposed",
        SURROGATE,
        "(to_way, x_way) if backwards else (x_way, to_way)",
        "(x_way, to_way)",
        SLOPES,
    ),
    Fault(
        "frameworks: the codebook loss reaches the encoder",
        SURROGATE,
        "pull = searched - fixed, codewords - ops.stop(searched)",
        "pull = searched - fixed, codewords - searched",
        STEP,
    ),
    Fault(
        "frameworks: the commitment reaches the words",
        SURROGATE,
        "out = fixed = ops.stop(codewords)\n",
        "out = fixed = codewords\n",
        STEP,
    ),
    Fault(
        "frameworks: the commitment of deeper levels is lost",
        SURROGATE,
        "        left = left - ops.stop(out)\n",
        "        left = ops.stop(left - out)\n",
        STEP,
    ),
    Fault(
        "frameworks: project_out has no gradient",
        SURROGATE,
        "through = through + share[:, None] * (out - ops.stop(out))",
        "through = through + share[:, None] * (ops.stop(out) - ops.stop(out))",
        STEP,
    ),
    Fault(
        "weights: the end of a block is not looked at",
        "rvq_np/kernels/fingerprints.py",
        "for i in range(len(part)):",
        "for i in range(len(part) - 1):",
        f"{WEIGHTS}::test_every_single_bit_is_seen",
    ),
    Fault(
        "weights: what was prepared last is taken for what is asked for",
        "rvq_np/grad/_cache.py",
        "if len(same) == len(names):",
        "if len(same) <= len(names):",
        f"{WEIGHTS}::test_codes_are_those_of_the_weights_as_they_are_now",
    ),
    Fault(
        "compiled code: the number of a dead quantizer is used again",
        "rvq_np/grad/_references.py",
        "number = next(_next_number)",
        "number = place",
        "tests/peers/test_grad_references.py",
    ),
)
