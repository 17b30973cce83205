"""A forecast from a long series of several measurements: the temperature of the next six hours.

The package pvlib brings along a year of hourly weather of Greensboro, North Carolina (a "typical meteorological year":
real hours, the months taken from different years). A record is a window: eight measurements of the last 24 hours, and
the temperatures of the next six. A small recurrent network in PyTorch is compared with the two forecasts that cost
nothing: it stays as it is, and it will be as yesterday at this time. A network that does not beat them has learned
nothing. Nothing is downloaded. Some 20 seconds on two CPU cores.

    python -m pip install ".[torch]" pvlib     # in a clone
    python examples/forecast.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pvlib
import torch
from torch import nn

import hypersequence as hs

PAST, AHEAD = 24, 6  # hours
MEASUREMENTS = ["temp_air", "temp_dew", "relative_humidity", "pressure", "wind_speed", "ghi", "dni", "ghi_extra"]
LAST_TRAINED_DAY = 21  # of every month; the days after it are for the test


def pack(path: Path) -> None:
    """Write every window that lies in one month, and on one side of the border between training and test."""
    weather, _ = pvlib.iotools.read_tmy3(
        Path(pvlib.__file__).parent / "data" / "723170TYA.CSV", map_variables=True, coerce_year=1990
    )
    series = weather[MEASUREMENTS].to_numpy(np.float32)
    is_test = weather.index.day.to_numpy() > LAST_TRAINED_DAY
    # Neighbouring windows share hours. Were they dealt out to both parts, the test would be of what was trained.
    stretch = weather.index.month.to_numpy() * 2 + is_test
    with hs.HyperSequenceWriter(path, batch_size=32) as writer:
        for start in range(len(series) - PAST - AHEAD + 1):
            now, end = start + PAST, start + PAST + AHEAD
            if stretch[start] == stretch[end - 1]:
                writer.append(
                    inputs=series[start:now],
                    outputs={"temperatures": series[now:end, 0], "is_test": is_test[start]},
                )
        # The scale of the measurements is part of the model, and goes by the training days alone.
        trained = series[~is_test]
        writer.user_meta().update(
            measurements=MEASUREMENTS, mean=trained.mean(0).tolist(), deviation=trained.std(0).tolist()
        )


class Forecast(nn.Module):
    """A GRU over the past hours; it says by how much the next ones differ from the last one."""

    def __init__(self, mean: list[float], deviation: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))
        self.gru = nn.GRU(len(mean), 48, batch_first=True)
        self.head = nn.Linear(48, AHEAD)

    def forward(self, past: torch.Tensor) -> torch.Tensor:
        """Degrees, a column for each hour ahead."""
        hidden, _ = self.gru((past - self.mean) / self.deviation)
        return past[:, -1:, 0] + self.deviation[0] * self.head(hidden[:, -1])


def train(path: Path, epochs: int) -> None:
    """Train on some days, test on the others, and say what came of it."""
    windows = hs.open(path)
    meta = windows.user_meta()
    _, marks = windows.fields("is_test").records[:]
    training = windows.select(~marks["is_test"]).fields("inputs", "temperatures")
    test = windows.select(marks["is_test"]).fields("inputs", "temperatures")
    loader = training.shuffled(seed=1).as_torch()

    torch.set_num_threads(1)  # a network as small as this gains nothing from more, and loses much on a busy machine
    torch.manual_seed(0)
    model = Forecast(meta["mean"], meta["deviation"])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(epochs):
        total = 0.0
        for past, coming in loader:
            loss = nn.functional.l1_loss(model(past), coming["temperatures"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(past)
        print(f"epoch {epoch + 1}: mean error {total / training.n_records:.2f} degrees")

    errors = {"network": 0.0, "as it is now": 0.0, "as yesterday": 0.0}
    with torch.no_grad():
        for past, coming in test.as_torch():
            guesses = zip(errors, (model(past), past[:, -1:, 0], past[:, :AHEAD, 0]), strict=True)
            for name, guess in guesses:
                errors[name] += float((guess - coming["temperatures"]).abs().mean(1).sum()) / test.n_records
    print(f"windows: {training.n_records:,} to train, {test.n_records:,} to test, of other days")
    for name, error in errors.items():
        print(f"mean error of the next {AHEAD} hours, {name}: {error:.2f} degrees")


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="A forecast of temperatures, in PyTorch.")
    parser.add_argument("--folder", type=Path, help="where to keep weather.hsq; a temporary folder if left out")
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = (arguments.folder or Path(temporary)) / "weather.hsq"
        pack(path)
        train(path, arguments.epochs)


if __name__ == "__main__":
    main()
