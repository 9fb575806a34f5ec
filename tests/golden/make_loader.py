"""Writes what tests/spec/data/loader_spec.lua compares with: images, and numpy's ((x / 255) - mean) / std of
them. Run in tests/golden."""
import numpy as np

x = np.random.RandomState(7).randint(0, 256, (5, 4, 6, 3)).astype("u1")
mean, std = np.array([0.4914, 0.4822, 0.4465]), np.array([0.2470, 0.2435, 0.2616])
np.save("loader_images.npy", x)
np.save("loader_normalised.npy", ((x / 255.0 - mean) / std).astype("<f4"))
