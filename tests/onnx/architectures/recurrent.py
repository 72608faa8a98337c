"""Nets over frames of speech."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpeechNet(nn.Module):
    """A strided convolution over time, recurrent layers both ways, log-probabilities of letters by frame.

    After Amodei et al. 2016, "Deep Speech 2".
    """

    def __init__(
        self, cell: type[nn.LSTM] | type[nn.GRU], bands: int = 8, width: int = 6, letters: int = 5
    ) -> None:
        super().__init__()
        self.enter = nn.Conv1d(bands, width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm1d(width)
        self.cell = cell(width, width, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * width, letters)

    def forward(self, frames: Tensor) -> Tensor:
        x = torch.nn.functional.hardtanh(self.norm(self.enter(frames)), 0.0, 20.0)
        return self.head(self.cell(x.transpose(1, 2))[0]).log_softmax(-1)


class Detector(nn.Module):
    """One step of a voice detector that carries its state: frame and state to probability and state."""

    def __init__(self, bands: int = 12, width: int = 6) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, width, 4, stride=4)
        self.cell = nn.LSTM(width, width)
        self.head = nn.Linear(width, 1)

    def forward(self, frame: Tensor, hidden: Tensor, carried: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.relu(self.enter(frame.unsqueeze(1))).permute(2, 0, 1)
        y, (hidden, carried) = self.cell(x, (hidden, carried))
        return torch.sigmoid(self.head(y[-1])), hidden, carried
