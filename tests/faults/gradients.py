"""Faults of the gradients: of the products by hand, and of what the frameworks differentiate."""

from ._fault import Fault

GRAD = "tests/test_grad.py"
SLOPES = f"{GRAD}::test_products_are_the_slopes_of_the_surrogate"
TORCH = "tests/peers/test_grad_torch.py"
STEP = f"{TORCH}::test_a_step_has_the_values_gradients_and_state_of_the_class"
PRODUCTS, SURROGATE = "rvq_np/grad/_products.py", "rvq_np/grad/_surrogate.py"

FAULTS = (
    Fault(
        "products: every level passes the identity on",
        "Products.__call__",
        "to_x += self._through(rows, wanted)",
        "to_x += len(self.codes) * self._through(rows, wanted)",
        SLOPES,
    ),
    Fault(
        "products: the commitment of deeper levels is lost",
        "pulled_back",
        "ops.sum_into(to_x, pull, 1.0)",
        "ops.sum_into(to_x, pull, 0.0)",
        f"{GRAD}::test_the_commitment_reaches_every_level",
    ),
    Fault(
        "products: the codebook loss reaches the encoder",
        "Products._by_level",
        "penalty=self.weight * penalty, quantization",
        "penalty=self.weight * penalty + quantization_loss, quantization",
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
        "rows_of(NUMPY, given).astype(dtype) * (self.active > 0)[:, None]",
        "rows_of(NUMPY, given).astype(dtype)",
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
        "pull = searched - fixed, words - ops.stop(searched)",
        "pull = searched - fixed, words - searched",
        STEP,
    ),
    Fault(
        "frameworks: the commitment reaches the words",
        "attach",
        "out = fixed = ops.stop(words)",
        "out = fixed = words",
        STEP,
    ),
    Fault(
        "frameworks: the commitment of deeper levels is lost",
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
)
