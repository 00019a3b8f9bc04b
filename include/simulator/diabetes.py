"""The diabetes data that comes with scikit-learn: a real regression problem for the python source.

Source: Efron, Hastie, Johnstone, Tibshirani (2004), Least Angle Regression,
https://doi.org/10.1214/009053604000000067.
"""

from __future__ import annotations

import pandas as pd
from sklearn.datasets import load_diabetes


def load() -> pd.DataFrame:
    """Return 442 patients in natural units: ten baseline columns and `target`.

    Returns:
        `age` (years), `sex` (1 or 2), `bmi` (kg/m²), `bp` (mean blood pressure, mmHg), six blood serum
        measurements `s1` to `s6`, and `target`: progression of the disease after one year, 25 to 346.
    """
    frame: pd.DataFrame = load_diabetes(as_frame=True, scaled=False).frame
    return frame
