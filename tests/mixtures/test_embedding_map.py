"""The projection of the map of embeddings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlmill.mixtures.page.embedding_map import project_vectors


@given(st.integers(0, 50))
def test_the_axes_are_those_of_most_variance_and_keep_their_sides(seed):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(60, 6)) * np.array([5.0, 2.0, 0.1, 0.1, 0.1, 0.1])
    places = project_vectors(vectors)
    assert np.corrcoef(places[:, 0], vectors[:, 0])[0, 1] > 0.98  # not its mirror image
    assert np.corrcoef(places[:, 1], vectors[:, 1])[0, 1] > 0.9
    order = random.permutation(60)
    assert np.abs(project_vectors(vectors[order]) - places[order]).max() < 2e-3


def test_one_vector_and_one_component_have_a_place():
    assert project_vectors(np.ones((1, 4))).tolist() == [[0.0, 0.0]]
    assert project_vectors(np.array([[1.0], [3.0]])).shape == (2, 2)
