"""Simulated classifiers with known performance."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits


def simulate_predictions(n, seed, separation=1.5, overconfidence=1.0, prior=(0.3, 0.25, 0.45)):
    """Probabilities (n, 3) and label ids (n,). The probabilities are calibrated if `overconfidence` is 1."""
    generator = np.random.default_rng(seed)
    label_ids = generator.choice(3, size=n, p=prior)
    evidence = separation * np.eye(3)[label_ids] + generator.normal(size=(n, 3))
    logits = (separation * evidence + np.log(prior)) * overconfidence
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True), label_ids


@pytest.fixture
def simulate():
    return simulate_predictions


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Thousands of small matrix products are slower with many threads, which wait for each other."""
    with threadpool_limits(1):
        yield
