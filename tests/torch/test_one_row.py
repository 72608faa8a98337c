"""A single row has the gradient that it has beside others, whatever PyTorch's BatchNorm does with it."""

import numpy as np
import pytest
import torch
from mollikit_torch import TorchOracle
from torch import nn

X = np.random.default_rng(0).standard_normal((2, 8, 5, 7))


class Turned(nn.Module):
    """Behind the normalization its cotangent has the channels last and the batch next to them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm2d(8)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)
        self.register_buffer("weights", torch.randn(5, 7, 1, 8))

    def forward(self, x):
        turned = self.norm(x).permute(2, 3, 0, 1).contiguous()
        return (turned * self.weights).sum((0, 1, 3))[:, None]


def plain(net, x):
    x = torch.from_numpy(x).requires_grad_()
    return torch.autograd.grad(net(x)[:, 0].sum(), x)[0].numpy()


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_one_row_has_the_gradient_that_it_has_beside_another(form):
    net = Turned().double().eval()
    scale = (net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()).detach()[:, None, None]
    exact = net.weights[:, :, 0].permute(2, 0, 1) * scale
    oracle = TorchOracle(net, target=0, memory_format=form)
    for rows in (1, 2):
        values, gradients = oracle.value_and_gradient(X[:rows])
        assert values.shape == (rows,)
        assert gradients.shape == X[:rows].shape
        np.testing.assert_allclose(gradients, np.broadcast_to(exact, gradients.shape), rtol=1e-12)
    _, (first, _) = oracle.values_and_gradients(X[:1], [0, 0])
    np.testing.assert_array_equal(first, gradients[:1])
    by_row = TorchOracle(net, memory_format=form).value_and_gradient(X[:1], target=np.array([0]))[1]
    np.testing.assert_array_equal(by_row, gradients[:1])


def test_what_this_guards_against():
    net = Turned().double().eval()
    if np.allclose(plain(net, X)[:1], plain(net, X[:1])):
        pytest.skip("this PyTorch tells the gradient of one row right")
    assert np.abs(plain(net, X)[:1] - plain(net, X[:1])).max() > 0.1
