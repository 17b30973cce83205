"""A Keras ``fit`` fed by ``as_keras`` and by arrays in memory.

``python -m benchmarks.fit [tensorflow jax torch]``: each backend in a process of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

N, SIZE, ROUNDS = 16_384, 64, 7


def compare() -> None:
    """On the backend of this process."""
    import keras
    import numpy as np

    import hypersequence as hs

    from .measure import folder, ratio, row
    from .training import SHAPE, Steps, model_of

    images, labels = np.random.default_rng(0).random((N, *SHAPE), np.float32), np.arange(N) % 10
    with folder() as where:
        with hs.HyperSequenceWriter(where / "train.hsq", SIZE) as writer:
            writer.extend(images, labels)
        print(f"\n{keras.backend.backend()}: {N // SIZE} steps of {SIZE}")
        row("filters", "ms a step, arrays", "as_keras / arrays")
        for width in (4, 16):
            model, clock = model_of(width), Steps()
            feeds = {
                "arrays": {"x": images, "y": labels, "batch_size": SIZE},
                "as_keras": {"x": hs.open(where / "train.hsq").as_keras(shuffle_on_epoch=True, seed=1)},
            }
            seconds: dict[str, list[float]] = {name: [] for name in feeds}
            for turn in range(ROUNDS + 1):
                for name in sorted(feeds, key=lambda name: hash((name, turn))):
                    model.fit(**feeds[name], epochs=1, verbose=0, callbacks=[clock])
                    if turn:  # the first compiles
                        seconds[name].append(clock.step)

            step = statistics.median(seconds["arrays"]) * 1e3
            row(width, f"{step:.2f}", f"{ratio(seconds, 'as_keras', 'arrays'):.3f}")


def main() -> None:
    if os.environ.get("BENCH_FIT"):
        compare()
        return
    for backend in sys.argv[1:] or ("tensorflow", "jax", "torch"):
        environment = {**os.environ, "KERAS_BACKEND": backend, "BENCH_FIT": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([sys.executable, "-m", "benchmarks.fit"], env=environment, check=True)


if __name__ == "__main__":
    main()
