"""plots: the pictures of the command line and the notebooks. They need the extra `viz`.

look        colours, template, axes: the same for all
blocks      the tiles that a kernel visits
roofline    roofs of a GPU, patterns below them
waterfall   where the time goes, stage by stage
front       two goals against each other, and the front of what is best in both
pareto      what a search for configurations found
validation  predictions against measured runs
offload     decoding against the hit rate
breakeven   a pattern and dense attention over the length
sweep       times of a sweep over what varies
page        figures as a page that needs no network, or as a still picture
still       a figure drawn without a browser

Each module makes plotly figures; `save` writes one as .html or .png, `in_notebooks` has notebooks show them both ways.
"""

from .page import FORMATS, as_page, check, in_notebooks, save

__all__ = ["FORMATS", "as_page", "check", "in_notebooks", "save"]
