"""Scores of units, at the edge of their numbers."""

from hf_metaprune.masks.scores import ScoreMask


def test_scores_whose_mean_is_no_float32_stay() -> None:
    scores = ScoreMask({"a": [1e-45, *[0.0] * 9]})  # the smallest number that float32 has
    assert scores["a"][0] > 0
    assert scores.normalized("layer") == scores
