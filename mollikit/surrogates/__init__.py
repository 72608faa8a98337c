from mollikit.surrogates.audited import Audited
from mollikit.surrogates.bands import Bands, CosineBands, WholeBand
from mollikit.surrogates.coarse import Coarse
from mollikit.surrogates.combined import Combined
from mollikit.surrogates.record import BiasedEstimate, BiasedView, Surrogate, SurrogateMap
from mollikit.surrogates.ridges import Rectified, Ridges
from mollikit.surrogates.shrunk import Shrunk
from mollikit.surrogates.two_level import TwoLevel
from mollikit.surrogates.two_level_estimate import TwoLevelEstimate

__all__ = [
    "Audited",
    "Bands",
    "BiasedEstimate",
    "BiasedView",
    "Coarse",
    "Combined",
    "CosineBands",
    "Rectified",
    "Ridges",
    "Shrunk",
    "Surrogate",
    "SurrogateMap",
    "TwoLevel",
    "TwoLevelEstimate",
    "WholeBand",
]
