"""claims: what published systems report for themselves, asked of the simulator.

claim     Claim: one figure and its setting, as its source states it
selector  which claims an entry of a data file is about
setting   how a claim is asked (`settings.toml`)
quantity  times, speedups, rates and shares, computed by the simulator
rule      the verdict on what is not simulated, by what its fields say (`rules.toml`)
cause     figures that no kernel could reach
trial     an option that a source leaves out: which values would reconcile the claim
verdict   reproduced, off, under-specified or not modelled
page      the page of the documentation
"""

from .claim import Claim, read_claims
from .page import claims_page, errors_of
from .verdict import Verdict, judge

__all__ = ["Claim", "Verdict", "claims_page", "errors_of", "judge", "read_claims"]
