"""The vote: Equation 1, and drawing from it without replacement."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_metaprune.adapt.voting import agreement, count_votes, draw_order, is_tied, vote, vote_order, vote_probabilities
from hf_metaprune.errors import BankError, OptionError
from hf_metaprune.masks.mask import Mask, keep_count

SIZES = {"a": 12, "b": 7}


def masks(n: int, seed: int = 0, ratio: float = 0.6) -> list[Mask]:
    return [Mask.random(SIZES, ratio, seed + i) for i in range(n)]


def slow_equation_1(layer_masks: list[set[int]], size: int, tau: float) -> list[float]:
    """Equation 1 as it is printed."""
    counts = [sum(k in omega for omega in layer_masks) for k in range(size)]
    total = sum(np.exp(c / tau) for c in counts)
    return [float(np.exp(c / tau) / total) for c in counts]


def exact_inclusion(p: np.ndarray, k: int) -> np.ndarray:
    """Probability that each index is among k drawn one after the other without replacement, by enumeration."""
    inclusion = np.zeros(len(p))
    for order in permutations(range(len(p)), k):
        rest, chance = 1.0, 1.0
        for i in order:
            chance *= p[i] / rest
            rest -= p[i]
        inclusion[list(order)] += chance
    return inclusion


@given(st.integers(1, 5), st.integers(0, 1000), st.floats(0.2, 5.0))
def test_probabilities_are_those_of_equation_1(n: int, seed: int, tau: float) -> None:
    voters = masks(n, seed)
    counts = count_votes(voters)
    for name, size in SIZES.items():
        expected = slow_equation_1([set(m[name].tolist()) for m in voters], size, tau)
        assert vote_probabilities(counts[name], tau) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_inclusion_frequencies_match_the_exact_ones(k: int) -> None:
    logits = np.array([0.0, 0.5, 1.0, 2.0, 2.0])
    p = np.exp(logits) / np.exp(logits).sum()
    rng, draws = np.random.default_rng(0), 20_000
    counts = np.zeros(5)
    for _ in range(draws):
        counts[draw_order(logits, rng)[:k]] += 1
    exact = exact_inclusion(p, k)
    error = np.sqrt(exact * (1 - exact) / draws)
    assert exact.sum() == pytest.approx(k)
    assert (np.abs(counts / draws - exact) <= 4.5 * error).all()


def test_a_vote_draws_with_the_inclusion_frequencies_of_equation_1() -> None:
    sizes = {"l": 6}
    voters = [Mask({"l": units}, sizes) for units in ([0, 1], [0, 2], [0, 1])]
    exact = exact_inclusion(vote_probabilities(count_votes(voters)["l"], 0.8), 2)
    draws = 4000
    counts = np.zeros(6)
    for seed in range(draws):
        counts[vote(voters, 2 / 3, tau=0.8, seed=seed)["l"]] += 1
    assert (np.abs(counts / draws - exact) <= 4.5 * np.sqrt(exact * (1 - exact) / draws)).all()


@given(st.integers(1, 4), st.floats(0.05, 0.95), st.booleans(), st.integers(0, 99))
def test_a_vote_keeps_the_asked_share_and_follows_its_seed(n: int, ratio: float, sample: bool, seed: int) -> None:
    voters = masks(n, seed)
    mask = vote(voters, ratio, sample=sample, seed=seed)
    assert {name: len(units) for name, units in mask.items()} == {n: keep_count(s, ratio) for n, s in SIZES.items()}
    assert mask == vote(voters, ratio, sample=sample, seed=seed)


@given(st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_one_vote_serves_all_sizes(n: int, sample: bool, seed: int) -> None:
    voters = masks(n, seed)
    order = vote_order(voters, sample=sample, seed=seed)
    assert {name: sorted(units) for name, units in order.items()} == {n: list(range(s)) for n, s in SIZES.items()}
    larger, smaller = (vote(voters, ratio, sample=sample, seed=seed) for ratio in (0.4, 0.8))
    assert smaller <= larger


def test_the_top_vote_takes_the_units_with_most_votes_and_breaks_ties_as_told() -> None:
    sizes = {"l": 5}
    voters = [Mask({"l": units}, sizes) for units in ([0, 3], [3, 4], [3, 1])]
    assert vote(voters, 0.6, sample=False)["l"].tolist() == [0, 3]
    ties = {"l": np.array([0.1, 0.9, 5.0, 0.0, 0.2])}
    assert vote(voters, 0.6, sample=False, tie_break=ties)["l"].tolist() == [1, 3]


@given(st.integers(1, 4), st.floats(0.05, 0.95), st.integers(0, 99))
def test_a_tie_is_what_a_tie_break_can_decide(n: int, ratio: float, seed: int) -> None:
    voters = masks(n, seed)
    one_way = {name: np.arange(size, dtype=float) for name, size in voters[0].sizes.items()}
    other = {name: -scores for name, scores in one_way.items()}
    first, second = (vote(voters, ratio, sample=False, tie_break=t) for t in (one_way, other))
    keep = {name: keep_count(size, ratio) for name, size in SIZES.items()}
    assert is_tied(count_votes(voters), keep) == (first != second)


def test_a_single_voter_at_its_own_ratio_is_not_tied() -> None:
    voter = masks(1, 0, ratio=0.6)
    assert not is_tied(count_votes(voter), {name: keep_count(size, 0.6) for name, size in SIZES.items()})
    assert vote(voter, 0.6, sample=False) == voter[0]


def test_a_small_temperature_leaves_nothing_to_chance() -> None:
    voters = masks(1, ratio=0.5)
    assert all(vote(voters, 0.5, tau=0.01, seed=s) == voters[0] for s in range(20))


def test_weights_count_votes_and_keep_their_sum() -> None:
    voters = [Mask({"l": [0]}, {"l": 2}), Mask({"l": [1]}, {"l": 2})]
    assert count_votes(voters, [3.0, 1.0])["l"].tolist() == [1.5, 0.5]
    assert vote(voters, 0.5, sample=False, vote_weights=[1.0, 3.0])["l"].tolist() == [1]


@pytest.mark.parametrize("weights", [[1.0], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]])
def test_weights_that_cannot_be_used_are_refused(weights: list[float]) -> None:
    with pytest.raises(OptionError, match="vote weights"):
        count_votes(masks(2), weights)


def test_votes_that_cannot_be_held_are_refused() -> None:
    with pytest.raises(BankError, match="no neighbor"):
        count_votes([])
    with pytest.raises(OptionError, match="different networks"):
        count_votes([masks(1)[0], Mask.full({"a": 3})])
    with pytest.raises(OptionError, match="temperature"):
        vote(masks(2), 0.5, tau=0.0)
    with pytest.raises(OptionError, match="between 0 and 1"):
        vote(masks(2), 1.0)


def test_agreement_counts_holders_of_kept_units() -> None:
    voters = [Mask({"l": [0, 1]}, {"l": 4}), Mask({"l": [1, 2]}, {"l": 4})]
    assert agreement(Mask({"l": [0, 1, 3]}, {"l": 4}), voters) == {"l": {0: 1, 1: 1, 2: 1}}
