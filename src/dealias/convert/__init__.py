"""Anti-alias any network: find its downsampling sites by running it once, and put a blur in front of each subsampling.

`trace` records a forward pass, `sites` finds what subsamples in it, `placement` follows values to their non-linearity,
`rules` and `plan` decide, `edits` changes the modules, `calls` answers function calls, `api` puts these together, and
`report` says what was done and what it costs.
"""

from dealias.convert.api import antialias, antialias_with_report, sites
from dealias.convert.report import ConversionReport
from dealias.convert.sites import Site

__all__ = ["ConversionReport", "Site", "antialias", "antialias_with_report", "sites"]
