"""Plain decimals equal numpy's. Names of results and messages have used numpy's decimals since the first release."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mvae.decimals import plain


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_plain_decimal_is_the_one_that_numpy_writes(value: float) -> None:
    assert plain(value) == np.format_float_positional(value, trim="-")
