"""M, the predictor of iterations per second: fitted to a profile of a backend, tabulated for control.

`throttllem profile` writes a profile, `throttllem fit` turns it into a model, and `load_ips_model` makes
that an `IterationTimePredictor`. Only fitting needs LightGBM: control reads the table.
"""

from throttllem_env.prediction.ips.checks import check_profile
from throttllem_env.prediction.ips.control import TabulatedIterationTime, iteration_time, load_ips_model
from throttllem_env.prediction.ips.fitting import fit_profile
from throttllem_env.prediction.ips.model import IpsModel, load_model, train_model
from throttllem_env.prediction.ips.profile import (
    Noise,
    Profile,
    ProfileError,
    ProfileInfo,
    Samples,
    read_profile,
    write_profile,
)
from throttllem_env.prediction.ips.table import DecodeLookup, IpsTable, tabulate

__all__ = [
    "DecodeLookup",
    "IpsModel",
    "IpsTable",
    "Noise",
    "Profile",
    "ProfileError",
    "ProfileInfo",
    "Samples",
    "TabulatedIterationTime",
    "check_profile",
    "fit_profile",
    "iteration_time",
    "load_ips_model",
    "load_model",
    "read_profile",
    "tabulate",
    "train_model",
    "write_profile",
]
