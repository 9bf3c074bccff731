"""ACE: transforms by the supersmoother, and the exact ones of two categorical variables."""

import numpy as np

from selftaught.objectives.ace import ace, maximal_correlation
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    found = ace(golden["x"].numpy(), golden["y"].numpy())
    close(found.theta, golden["theta"])
    close(found.phi, golden["phi"])
    close(found.correlation, golden["corr"])
    exact = maximal_correlation(golden["joint"].numpy())
    close(exact.correlation, golden["max_corr"])
    close(np.abs(exact.phi[0]), golden["abs_phi_x"])
    close(np.abs(exact.theta), golden["abs_theta_y"])
