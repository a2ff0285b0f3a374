"""triton: the bundled attention kernels, runnable on a GPU and on Triton's interpreter.

forward       dense and block-sparse attention, and the launcher `attention`
neighborhood  neighborhood attention (GNA) that computes its own visits
steps         what those kernels do with one tile
lists         a TileSchedule as the index lists that the block-sparse kernel walks
tokens        tokens of a grid in the order of box-shaped tiles
decode        attention over a paged cache: split-KV, and lists of selected tokens, blocks or pages
side          permute, cache append, pooling, block scores, top-k
configs       shipped block shapes, warps and stages by architecture and head width (configs.toml)
builds        what a compiler without a GPU needs to know of each kernel
reference     attention in float64, for tests and for checks before a timing

Nothing is imported here: the kernels need triton, and launching needs torch too.
"""
