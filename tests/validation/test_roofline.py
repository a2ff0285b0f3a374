import pytest
from simattn.validation.roofline import Roofline, fitted_roofline


def test_constants_come_back(row):
    pytest.importorskip("scipy")
    true = Roofline(5e8, 2e9, 0.02)
    rows = [row(flops=n * 1e8, bytes=m * 1e9) for n in range(1, 6) for m in (0.1, 0.5, 2, 4)]
    rows = [r._replace(measured_ms=true.ms(r)) for r in rows]
    found = fitted_roofline(rows)
    assert found == pytest.approx(true, rel=0.02)
    assert fitted_roofline(rows[:5]) is None
