"""Anti-alias any network: find its downsampling sites by running it once, and put a blur in front of each subsampling.

A pass is recorded, sites are found in its trace, planned by rules, tried on a copy, and edited; a guard watches them.
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
