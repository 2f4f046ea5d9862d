"""What a row of the registry must have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unsup.core.errors import InputError
from unsup.core.rows import register, rows


@pytest.mark.parametrize(
    ("changes", "said"), [({"paper": None}, "has no paper"), ({"target": "Made"}, "expected 'module:Class'")]
)
def test_a_row_that_lacks_something_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        register(replace(rows()["made"], name="mine", **changes))
    assert "mine" not in rows()
