"""The names of ImageNet-C and ImageNet-P."""

from __future__ import annotations

import pytest

from dealias.errors import InputError
from dealias.perturb import corruptions, names, sequences


def test_every_name_has_its_function() -> None:
    assert (len(names.CORRUPTIONS), len(names.VALIDATION_CORRUPTIONS)) == (15, 4)
    assert (len(names.PERTURBATIONS), len(names.VALIDATION_PERTURBATIONS)) == (10, 4)
    assert set(corruptions._CORRUPTIONS) == {*names.CORRUPTIONS, *names.VALIDATION_CORRUPTIONS}
    assert set(sequences._SEQUENCES) == {*names.PERTURBATIONS, *names.VALIDATION_PERTURBATIONS}
    assert set(names.NOISE_PERTURBATIONS) == {name for name in sequences._SEQUENCES if name.endswith("_noise")}
    assert all(len(severities) == len(names.SEVERITIES) for _, severities in corruptions._CORRUPTIONS.values())


def test_others_are_refused_with_what_would_do() -> None:
    names.check_corruption("saturate", 5)
    names.check_perturbation("shear", 3)
    with pytest.raises(InputError, match=r"corruption='tilt' is unknown: use one of gaussian_noise, .*, saturate$"):
        names.check_corruption("tilt", 1, "corruption")
    with pytest.raises(InputError, match=r"name='fog' is unknown: use one of gaussian_noise, .*, shear$"):
        names.check_perturbation("fog", 1)
    for severity in (0, 6):
        with pytest.raises(InputError, match=rf"severity={severity} "):
            names.check_corruption("fog", severity)
    for difficulty in (0, 4):
        with pytest.raises(InputError, match=rf"difficulty={difficulty} "):
            names.check_perturbation("tilt", difficulty)
