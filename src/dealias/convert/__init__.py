"""Anti-alias any network: find its downsampling sites by running it once, and put a blur in front of each subsampling.

`trace` records a forward pass, `sites` finds what subsamples in it, `placement` follows values to their non-linearity,
`plan` decides, `edits` changes the modules, `api` puts these together.
"""

from dealias.convert.api import antialias, sites
from dealias.convert.sites import Site

__all__ = ["Site", "antialias", "sites"]
