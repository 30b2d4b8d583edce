"""Which axes of a value are pixels, and what makes them fewer."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias import sites
from dealias.convert.axes import FLAT
from dealias.convert.grids import Grids
from dealias.convert.recording import record


class Network(nn.Module):
    """A map of 2 x 8 x 12 x 16, what `how` makes of it, and a layer behind that reads it."""

    def __init__(self, how, last=None):
        super().__init__()
        self.first, self.how, self.last = nn.Conv2d(3, 8, 3, padding=1), how, last

    def forward(self, x):
        y = self.how(self.first(x))
        return y if self.last is None else self.last(y)


X = torch.rand(2, 3, 12, 16)


def axes_of(how):
    """What the axes of the result of `how` are, as found in a trace of it."""
    trace = record(Network(how), X)
    return Grids(trace).axes.get(trace.nodes[-1].outputs[0])


@pytest.mark.parametrize(
    ("how", "axes"),
    [
        (lambda x: x, (0, 0, 1, 2)),
        (lambda x: x.permute(0, 2, 3, 1), (0, 1, 2, 0)),
        (lambda x: x.permute(0, -1, -2, 1), (0, 2, 1, 0)),
        (lambda x: x.transpose(-1, 1), (0, 2, 1, 0)),
        (lambda x: x.mT, (0, 0, 2, 1)),
        (lambda x: x.flatten(2), (0, 0, FLAT)),
        (lambda x: x.flatten(2).transpose(1, 2), (0, FLAT, 0)),
        (lambda x: x.flatten(2).transpose(1, 2).transpose(1, 2).view(2, 8, 12, 16), (0, 0, 1, 2)),
        (lambda x: x.view(2, 2, 4, 12, 16).transpose(1, 2).reshape(2, 8, 12, 16), (0, 0, 1, 2)),
        (lambda x: x.view(2, 8, 3, 4, 4, 4), (0, 0, 1, -1, 2, -2)),
        (lambda x: x.view(2, 8, 3, 4, 4, 4).permute(0, 2, 4, 1, 3, 5), (0, 1, 2, 0, -1, -2)),
        (lambda x: x.unsqueeze(2), (0, 0, 0, 1, 2)),
        (lambda x: x.unsqueeze(-1), (0, 0, 1, 2, 0)),
        (lambda x: x.unsqueeze(2).squeeze(2), (0, 0, 1, 2)),
        (lambda x: x.squeeze(2), (0, 0, 1, 2)),  # an axis of several pixels stays
        (lambda x: x[:, :1].squeeze((1, 3)), (0, 1, 2)),
        (lambda x: x[:, 0], (0, 1, 2)),
        (lambda x: x.unbind(1)[3], (0, 1, 2)),
        (lambda x: torch.stack(x.unbind(1), 1), (0, 0, 1, 2)),
        (lambda x: x.chunk(2, 1)[1], (0, 0, 1, 2)),
        (lambda x: x.mean(1), (0, 1, 2)),
        (lambda x: x.mean(1, keepdim=True), (0, 0, 1, 2)),
        (lambda x: x.amax((2,)), (0, 0, 2)),
        (lambda x: x.mean((2, 3), keepdim=True), None),
        (lambda x: x * x.mean((2, 3), keepdim=True), (0, 0, 1, 2)),
        (lambda x: x.mean((2, 3), keepdim=True) * x, (0, 0, 1, 2)),
        (lambda x: x + torch.rand(8, 1, 1), (0, 0, 1, 2)),
        (lambda x: x.softmax(1), (0, 0, 1, 2)),
        (lambda x: torch.cat([x, x], 1), (0, 0, 1, 2)),
        (lambda x: x.unfold(2, 3, 1), (0, 0, 1, 2, 0)),
        (lambda x: F.pixel_shuffle(x, 2), (0, 0, 1, 2)),
        (lambda x: x.sum(), None),
        (lambda x: x.flatten(1), None),
    ],
)
def test_axes_are_followed(how, axes):
    assert axes_of(how) == axes


def test_a_map_is_whole_with_all_its_axes_alone():
    kept = {}

    def how(x):
        kept["flat"] = x.flatten(2)
        kept["blocks"] = x.view(2, 8, 3, 4, 16)
        return kept["blocks"].view(2, 8, 12, 16)

    trace = record(Network(how), X)
    grids = Grids(trace)
    values = {(node.op, node.outputs[0].shape): node.outputs[0] for node in trace.nodes}
    whole = {shape: grids.is_whole(value) for (_, shape), value in values.items()}
    assert whole == {(2, 8, 12, 16): True, (2, 8, 192): False, (2, 8, 3, 4, 16): False}
    assert grids.size(values["convolution", (2, 8, 12, 16)]) == (12, 16)


HALF = torch.eye(2, 3).expand(2, 2, 3)
SHRINKING = [
    ("slice", (6, 8), lambda x: x[..., ::2, ::2]),
    ("slice", (6, 8), lambda x: x.permute(0, 2, 3, 1)[:, ::2, ::2].permute(0, 3, 1, 2)),
    ("slice", (12, 8), lambda x: x[..., ::2].contiguous()),
    ("unfold", (6, 8), lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))),
    ("unfold", (6, 8), lambda x: F.unfold(x, 2, stride=2).view(2, 8, 4, 6, 8).amax(2)),
    ("pixel_unshuffle", (6, 8), lambda x: x.reshape(2, 8, 6, 2, 8, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 32, 6, 8)),
    ("unknown", (6, 8), lambda x: x.reshape(2, 8, 6, 2, 8, 2).amax((3, 5))),
    ("unknown", (6, 16), lambda x: x[:, :, torch.arange(0, 12, 2)]),
    ("unknown", (6, 8), lambda x: x[:, :, torch.arange(0, 12, 2)[:, None], torch.arange(0, 16, 2)]),
    ("unknown", (12, 8), lambda x: torch.slice_copy(x, 3, 0, 16, 2)),
    ("unknown", (12, 8), lambda x: x.index_select(3, torch.arange(0, 16, 2))),
    ("unknown", (12, 8), lambda x: x.gather(3, torch.arange(0, 16, 2).expand(2, 8, 12, 8))),
    ("unknown", (6, 16), lambda x: x.take_along_dim(torch.arange(0, 12, 2).view(1, 1, 6, 1), 2)),
    ("unknown", (12, 8), lambda x: x.take(torch.arange(3072).view(x.shape)[..., ::2])),
    ("unknown", (6, 8), lambda x: x.as_strided((2, 8, 6, 8), (1536, 192, 32, 2))),
    (
        "unknown",
        (6, 8),
        lambda x: F.grid_sample(x, F.affine_grid(HALF, (2, 8, 6, 8), align_corners=False), align_corners=False),
    ),
    ("unknown", (6, 8), lambda x: torch.fft.irfft2(torch.fft.rfft2(x)[:, :, [0, 1, 2, -3, -2, -1], :5])),
    ("interpolate", (6, 8), lambda x: F.interpolate(x, scale_factor=0.5)),
]


@pytest.mark.parametrize(("kind", "size", "how"), SHRINKING)
def test_what_makes_a_map_smaller_is_a_site(kind, size, how):
    found = sites(Network(how), X)
    assert {site.kind for site in found} == {kind}
    assert (found[0].input_size[0], found[-1].output_size) == (12, size)


ROWS, COLUMNS, PIXELS = torch.rand(6, 12), torch.rand(16, 8), torch.rand(48, 192)
SUMMING = [
    ((12, 8), lambda x: x @ COLUMNS),
    ((6, 16), lambda x: ROWS @ x),
    ((12, 8), lambda x: F.linear(x, COLUMNS.T, torch.rand(8))),
    ((12, 8), lambda x: F.linear(x.permute(0, 2, 1, 3), COLUMNS.T)),
    ((6, 16), lambda x: F.linear(x.transpose(2, 3), ROWS).transpose(2, 3)),
    ((6, 16), lambda x: F.linear(x.permute(0, 3, 1, 2), ROWS)),
    ((6, 16), lambda x: torch.einsum("nchw,kh->nckw", x, ROWS)),
    ((12, 8), lambda x: torch.einsum("wk,nchw->nckh", COLUMNS, x)),
    ((12, 8), lambda x: torch.tensordot(x, COLUMNS, 1)),
    ((12, 8), lambda x: torch.bmm(x.flatten(0, 1), COLUMNS.expand(16, 16, 8))),
    ((12, 8), lambda x: torch.baddbmm(torch.rand(16, 12, 8), x.flatten(0, 1), COLUMNS.expand(16, 16, 8))),
    ((12, 8), lambda x: x.mean(1) @ COLUMNS),
    ((48,), lambda x: F.linear(x.flatten(2), PIXELS)),
    ((48,), lambda x: torch.einsum("ncl,kl->nck", x.flatten(2), PIXELS)),
    ((48,), lambda x: PIXELS @ x.flatten(2).transpose(1, 2)),
    ((48,), lambda x: torch.tensordot(x, PIXELS.view(48, 12, 16), ((2, 3), (1, 2)))),
]


@pytest.mark.parametrize(("size", "how"), SUMMING)
def test_a_map_that_a_matrix_makes_smaller_is_a_site(size, how):
    (site,) = sites(Network(how), X)
    before = (12, 16) if len(size) == 2 else (192,)
    assert (site.kind, site.input_size, site.output_size) == ("unknown", before, size)
    assert "test_grids.py:" in site.reason


def test_each_axis_that_a_matrix_makes_smaller_is_a_site():
    found = sites(Network(lambda x: torch.einsum("nchw,kh,wv->nckv", x, ROWS, COLUMNS)), X)
    assert [(site.input_size, site.output_size) for site in found] == [((12, 16), (6, 16)), ((6, 16), (6, 8))]


TAKEN = [
    ((12, 16), (12, 8), lambda x: torch.stack([x[..., i] for i in range(0, 16, 2)], -1)),
    ((12, 16), (6, 16), lambda x: torch.stack([x[:, :, i] for i in range(0, 12, 2)], 2)),
    ((12, 16), (6, 16), lambda x: torch.stack([x.select(2, i) for i in range(0, 12, 2)], 1)),
    ((12, 16), (12, 8), lambda x: torch.stack(x.unbind(3)[::2], -1)),
    ((12, 16), (12, 8), lambda x: torch.cat([x[..., i : i + 1] for i in range(0, 16, 2)], -1)),
    ((12, 16), (12, 8), lambda x: torch.cat([x[..., i, None] for i in range(0, 16, 2)], -1)),
    ((12, 16), (6, 16), lambda x: torch.cat([x.select(2, i).unsqueeze(2) for i in range(0, 12, 2)], 2)),
    ((12, 16), (12, 8), lambda x: x.view(2, 8, 12, 8, 2)[..., 0]),
    ((12, 16), (6, 8), lambda x: x.view(2, 8, 6, 2, 8, 2).select(5, 1).select(3, 0)),
    ((12, 16), (6, 16), lambda x: torch.cat(x.split(1, 2)[::2], 2)),
    ((12, 16), (12, 8), lambda x: torch.cat([x[..., :4], x[..., 12:]], 3)),
    ((192,), (96,), lambda x: x.flatten(2).transpose(1, 2)[:, ::2]),
    ((192,), (96,), lambda x: x.flatten(2)[..., 1::2]),
    ((192,), (64,), lambda x: F.linear(x.flatten(2).transpose(1, 2), torch.rand(5, 8))[:, ::3]),
    ((192,), (96,), lambda x: x.flatten(2)[..., torch.arange(0, 192, 2)]),
    ((192,), (96,), lambda x: x.flatten(2).index_select(2, torch.arange(0, 192, 2))),
    ((192,), (96,), lambda x: torch.stack(x.flatten(2).unbind(2)[::2], -1)),
    ((192,), (96,), lambda x: x.take(torch.arange(0, 3072, 2)).view(2, 8, 12, 8)),
    ((192,), (96,), lambda x: x.take_along_dim(torch.arange(0, 3072, 2)).view(2, 8, 12, 8)),
    ((192,), (96,), lambda x: x.flatten()[torch.arange(0, 3072, 2)].view(2, 8, 12, 8)),
    ((192,), (96,), lambda x: x.masked_select(torch.arange(16) % 2 == 0).view(2, 8, 12, 8)),
]


@pytest.mark.parametrize(("before", "after", "how"), TAKEN)
def test_pixels_taken_one_by_one_or_from_tokens_are_a_site(before, after, how):
    (site,) = sites(Network(how), X)
    assert (site.kind, site.input_size, site.output_size) == ("unknown", before, after)
    assert "test_grids.py:" in site.reason


@pytest.mark.parametrize(
    "how",
    [
        lambda x: torch.fft.ifft2(torch.fft.fft2(x)[..., :6, :8]).real,
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x)[..., :6, :5]),
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=(6, 8)),
        lambda x: torch.fft.irfft2(torch.cat([torch.fft.rfft2(x)[:, :, part, :5] for part in (UPPER, LOWER)], 2)),
        lambda x: torch.fft.ifft2(torch.fft.ifftshift(torch.fft.fftshift(torch.fft.fft2(x))[..., 3:9, 4:12])).abs(),
        lambda x: torch.fft.fft2(x)[..., :6, :8].abs(),
        lambda x: torch.fft.fft2(x)[..., :6, :8].real,
        lambda x: torch.fft.fft2(x)[..., :6, :8],
    ],
)
def test_a_crop_of_a_spectrum_is_one_site(how):
    (site,) = sites(Network(how), X)
    assert (site.kind, site.input_size, site.output_size) == ("unknown", (12, 16), (6, 8))


UPPER, LOWER = slice(None, 3), slice(-3, None)


def test_slices_of_one_map_by_steps_are_sites_of_their_own():
    """One that is read by a layer and sliced further, and one that also takes channels by steps."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            half = self.first(x)[:, :, ::2, ::2]
            return self.second(half), half[:, :, ::2, ::2]

    found = [(site.kind, site.input_size, site.output_size) for site in sites(Twice(), X)]
    assert found == [("slice", (12, 16), (6, 8)), ("slice", (6, 8), (3, 4))]
    found = sites(Network(lambda x: (y := x[..., ::2], y[:, :, ::2])), X)
    assert [site.output_size for site in found] == [(12, 8), (6, 8)]
    (site,) = sites(Network(lambda x: x[:, ::2, ::2, ::2]), X)
    assert (site.kind, site.input_size, site.output_size) == ("unknown", (12, 16), (6, 8))


@pytest.mark.parametrize(
    "how",
    [
        lambda x: x[..., 2:-2, 2:-2],
        lambda x: F.pad(x, (-1, -1, -2, -2)),
        lambda x: x.split(6, 2)[0],
        lambda x: x.narrow(3, 1, 8),
        lambda x: torch.narrow_copy(x, 3, 1, 8),
        lambda x: torch.slice_copy(x, 3, 1, 9),
        lambda x: torch.split_with_sizes_copy(x, [4, 12], 3)[1],
        lambda x: torch.stack([x[..., i] for i in range(4, 12)], -1),
        lambda x: torch.cat([x[..., i : i + 2] for i in range(4, 12, 2)], -1),
        lambda x: x.view(2, 8, 3, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(24, 4, 4, 8),  # windows of Swin
        lambda x: torch.roll(x, (1, 1), (2, 3)),
        lambda x: torch.cat([x[..., 4:], x[..., :4]], -1),
        lambda x: torch.stack([x[:, i] for i in range(0, 8, 2)], 1),
        lambda x: torch.stack(x.unbind(2)[::-1], 2),
        lambda x: torch.fft.irfft2(torch.fft.rfft2(x)),
        lambda x: torch.fft.rfft2(x).abs(),
        lambda x: torch.fft.ifft2(torch.fft.ifftshift(torch.fft.fftshift(torch.fft.fft2(x)))).real,
        lambda x: torch.view_as_complex(torch.view_as_real(torch.fft.rfft2(x))),
        lambda x: x.flatten(2).transpose(1, 2).softmax(1),
        lambda x: x[:, ::2],
        lambda x: x.mean((2, 3)),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: x * F.adaptive_avg_pool2d(x, 1),
        lambda x: x.flip(2),
        lambda x: x.unfold(2, 3, 1),
        lambda x: F.linear(x.permute(0, 2, 3, 1), torch.rand(4, 8)),
        lambda x: torch.einsum("nchw,dc->ndhw", x, torch.rand(5, 8)),
        lambda x: F.linear(x.flatten(2).transpose(1, 2), torch.rand(4, 8)),
        lambda x: F.linear(x.flatten(2), torch.rand(192, 192)),
        lambda x: F.linear(F.linear(x.flatten(2), torch.rand(384, 192)), torch.rand(192, 384)) + x.flatten(2),
        lambda x: F.linear(x, torch.rand(1, 16)),
        lambda x: (x.flatten(2).transpose(1, 2) @ x.flatten(2)).softmax(-1) @ x.flatten(2).transpose(1, 2),
        lambda x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
        lambda x: torch.cat([torch.rand(2, 1, 8), x.flatten(2).transpose(1, 2)], 1)[:, 1:].flatten(2),
        lambda x: x.flatten(2).transpose(1, 2)[:, 0],
    ],
)
def test_crops_windows_and_statistics_are_no_sites(how):
    assert sites(Network(how), X) == []


def test_windows_and_back_are_the_map_again():
    def how(x):
        windows = x.view(2, 8, 3, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(24, 16, 8)
        return windows.view(2, 3, 4, 4, 4, 8).permute(0, 5, 1, 3, 2, 4).reshape(2, 8, 12, 16)[..., ::2, ::2]

    (site,) = sites(Network(how), X)
    assert (site.kind, site.input_size, site.output_size) == ("slice", (12, 16), (6, 8))


@pytest.mark.parametrize(
    "how",
    [
        lambda x: x.flatten(2)[..., :4][..., 0::2],  # the corners of boxes
        lambda x: x.permute(0, 2, 3, 1).reshape(2, -1, 4)[..., 0::2],
        lambda x: x.permute(0, 2, 3, 1).reshape(2, -1, 4)[..., [0, 2]],
        lambda x: x.flatten(2).sort(-1).values[..., :5],
        lambda x: x.flatten(2).topk(5, -1).values,
        lambda x: x.flatten(2).sort(-1).values[..., ::2],
        lambda x: x.flatten(2).gather(2, x.flatten(2).argsort(-1)[..., :96]),
        lambda x: x.flatten(2)[..., x.flatten(2).mean((0, 1)) > 0],
        lambda x: F.linear(x.flatten(1), torch.rand(10, 1536)),
        lambda x: F.linear(x[:, :1].flatten(1), torch.rand(10, 192)),
        lambda x: F.linear(x[:, :1].flatten(2), torch.rand(10, 192)),
        lambda x: x.flatten(1)[:, ::2],
        lambda x: torch.rand(7, 192) @ torch.rand(192, 8) @ x.flatten(2),  # queries
        lambda x: x.view(2, 2, 4, 12, 16).permute(0, 3, 4, 1, 2).reshape(2, -1, 4)[:, :, 1::2],
    ],
)
def test_coordinates_and_scores_are_no_maps(how):
    assert sites(Network(how), X) == []


def test_class_scores_taken_apart_are_no_maps():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 10)

        def forward(self, x):
            scores = self.head(self.conv(x).mean((2, 3)))
            return scores[:, ::2], scores.view(2, 5, 2)[..., ::2]

    assert sites(Classifier(), X) == []


def test_a_convolution_that_pytorch_does_not_know_is_a_site():
    """As torchvision's deformable one, of which only the name and the sizes are known."""

    @torch.library.custom_op("dealias_tests::deform_conv2d", mutates_args=())
    def deform_conv2d(x: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        return F.conv2d(x, weight, stride=stride, padding=1)

    class Deformable(nn.Module):
        def __init__(self, stride):
            super().__init__()
            self.first, self.second, self.stride = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3), stride

        def forward(self, x):
            return F.relu(deform_conv2d(F.relu(self.first(x)), self.second.weight, self.stride))

    (site,) = sites(Deformable(2), X)
    assert (site.kind, site.input_size, site.output_size, site.stride) == ("unknown", (12, 16), (6, 8), (2, 2))
    assert "deform_conv2d" in site.reason
    assert sites(Deformable(1), X) == []


def test_a_quantised_convolution_is_a_site():
    from torch.ao import quantization

    engines = [one for one in ("x86", "fbgemm", "qnnpack") if one in torch.backends.quantized.supported_engines]
    if not engines:
        pytest.skip("no kernels for quantised networks")
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, 2, 1), nn.ReLU())
    with warnings.catch_warnings(action="ignore"):  # PyTorch's own, of what it deprecates
        model = quantization.QuantWrapper(layers).eval()
        model.qconfig = quantization.get_default_qconfig(engines[0])
        quantization.prepare(model, inplace=True)(X)
        quantised = quantization.convert(model)
    found = sites(quantised, X)
    assert [(site.kind, site.input_size, site.output_size) for site in found] == [("unknown", (12, 16), (6, 8))]
    assert not found[0].placed
