"""What a film says of the time that is left."""

from __future__ import annotations

import pytest

from studio_pipelines.video_framepack.filming import Pace


def test_decoding_counts_before_any_was_seen() -> None:
    pace = Pace(steps=8, sections=3, decoding=10.0)
    assert pace.section_s(0) is None
    assert pace.film_s(0, 0) is None
    pace.denoise_s, pace.done_steps = 4.0, 4  # one second a step; the plan foresees 80 s of decoding
    assert pace.section_s(4) == pytest.approx(4 + 80)
    assert pace.film_s(0, 4) == pytest.approx(4 + 80 + 2 * 88)
    pace.decode_s, pace.decoded = 5.0, 1  # what was seen counts from then on
    assert pace.section_s(4) == pytest.approx(4 + 5)
    assert pace.film_s(2, 8) == pytest.approx(5)
