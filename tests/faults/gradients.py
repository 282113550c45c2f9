"""Faults of the gradients: of the products by hand, and of what the frameworks differentiate."""

from ._fault import Fault

GRAD = "tests/test_grad.py"
SLOPES = f"{GRAD}::test_products_are_the_slopes_of_the_surrogate"
TORCH = "tests/peers/test_grad_torch.py"
STEP = f"{TORCH}::test_a_step_has_the_values_gradients_and_state_of_the_class"
WEIGHTS = "tests/peers/test_grad_weights.py"

FAULTS = (
    Fault(
        "products: every stage passes the identity on",
        "Products.__call__",
        "to_x += self._through(rows, to_rows)",
        "to_x += len(self.codes) * self._through(rows, to_rows)",
        SLOPES,
    ),
    Fault(
        "products: the commitment of deeper stages is lost",
        "pulled_back",
        "ops.add_scaled(to_x, pull, 1.0)",
        "ops.add_scaled(to_x, pull, 0.0)",
        f"{GRAD}::test_the_commitment_reaches_every_stage",
    ),
    Fault(
        "products: the codebook loss reaches the encoder",
        "Products._by_stage",
        "penalty=self.weight * penalty,",
        "penalty=self.weight * penalty + quantization_loss,",
        SLOPES,
    ),
    Fault(
        "products: project_out has no gradient",
        "pulled_back",
        "given.T @ moved + total[:, None] * into[1]",
        "0 * given.T @ moved",
        SLOPES,
    ),
    Fault(
        "products: project_in has the commitment only",
        "pulled_back",
        "to_searched = ops.product(given, out[0], pull, 1.0, 1.0)",
        "to_searched = pull",
        SLOPES,
    ),
    Fault(
        "products: padding receives a gradient",
        "Products.__call__",
        "rows_of(NUMPY, given).astype(rows.dtype) * (self.active > 0)[:, None]",
        "rows_of(NUMPY, given).astype(rows.dtype)",
        f"{GRAD}::test_what_padding_holds_reaches_no_gradient",
    ),
    Fault(
        "products: the rotation is not transposed",
        "rotated",
        "(to_way, x_way) if backwards else (x_way, to_way)",
        "(x_way, to_way)",
        SLOPES,
    ),
    Fault(
        "frameworks: the codebook loss reaches the encoder",
        "attach",
        "pull = searched - fixed, codewords - ops.stop(searched)",
        "pull = searched - fixed, codewords - searched",
        STEP,
    ),
    Fault(
        "frameworks: the commitment reaches the codewords",
        "attach",
        "out = fixed = ops.stop(codewords)",
        "out = fixed = codewords",
        STEP,
    ),
    Fault(
        "frameworks: the commitment of deeper stages is lost",
        "attach",
        "left = left - ops.stop(out)",
        "left = ops.stop(left - out)",
        STEP,
    ),
    Fault(
        "frameworks: project_out has no gradient",
        "attach",
        "through = through + share[:, None] * (out - ops.stop(out))",
        "through = through + share[:, None] * (ops.stop(out) - ops.stop(out))",
        STEP,
    ),
    Fault(
        "weights: the end of a block is not looked at",
        "fingerprint",
        "for i in range(len(part)):",
        "for i in range(len(part) - 1):",
        f"{WEIGHTS}::test_every_single_bit_is_seen",
    ),
    Fault(
        "weights: what was prepared last is taken for what is asked for",
        "prepared",
        "if len(same) == len(names):",
        "if len(same) <= len(names):",
        f"{WEIGHTS}::test_codes_are_those_of_the_weights_as_they_are_now",
    ),
    Fault(
        "compiled code: the number of a dead quantizer is used again",
        "number_of",
        "number = next(_next_number)",
        "number = place",
        "tests/peers/test_grad_references.py",
    ),
)
