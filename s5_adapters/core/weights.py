"""Where pickles of SB3 and RLlib find what is now in `s5_adapters.core.files.weights`."""

from s5_adapters.core.files.weights import ObservationStatistics as ObservationStatistics
from s5_adapters.core.files.weights import Policy as Policy
