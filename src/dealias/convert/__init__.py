"""Anti-alias any network: find its downsampling sites by running it once, and put a blur in front of each subsampling.

`recording` runs the network and makes a `trace`; `grids` follows its maps by the rules of `axes`, and `downsampling`
finds what subsamples them. `placement` follows values to their non-linearity, `branches` finds where they meet, and
`rules` and `plan` decide what becomes of the `groups` of sites. `verify` tries the plans on a copy, `edits` changes the
modules, `calls` answers function calls, `guard` sees that blurs stay. `frames` tells which sites must start from the
same pixels, and `anchors` places `anchor_layers` in front of them. `api` puts these together, and `report` says what
was done and what it costs. `certificate` tries shifts; `borders` and `coverage` say what hinders exactness, and
`circular` lets layers wrap around.
"""

from dealias.convert.api import antialias, antialias_with_report, sites
from dealias.convert.certificate import Certificate, certify
from dealias.convert.circular import to_circular
from dealias.convert.downsampling import Site
from dealias.convert.report import ConversionReport

__all__ = [
    "Certificate",
    "ConversionReport",
    "Site",
    "antialias",
    "antialias_with_report",
    "certify",
    "sites",
    "to_circular",
]
