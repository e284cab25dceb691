"""Where pickles find what is now in `s5_adapters.core.network.distributions`."""

from s5_adapters.core.network.distributions import Box as Box
from s5_adapters.core.network.distributions import Discrete as Discrete
from s5_adapters.core.network.distributions import MultiDiscrete as MultiDiscrete
