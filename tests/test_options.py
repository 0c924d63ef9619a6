"""Options: how they are given, what they reach, and which are refused before long work starts."""

from __future__ import annotations

import re

import pytest
import torch

from hf_metaprune import MetaPruner
from hf_metaprune.adapt.plan import resolve_options
from hf_metaprune.config import AdaptOptions, TrainingOptions, merge_options
from hf_metaprune.data.task import TaskData
from hf_metaprune.errors import BankError, OptionError
from hf_metaprune.models.architectures.recipe import CONVOLUTIONAL, TRANSFORMER
from hf_metaprune.options import option_fields
from hf_metaprune.similarity.similarity import SIMILARITIES

CPU = torch.device("cpu")
FAST = {"steps": 6, "batch_size": 16, "eval_steps": (0, 3), "neighbors": 2}


@pytest.fixture
def target(task_data: TaskData) -> TaskData:
    return task_data.select((0, 2, 4))


@pytest.mark.slow
def test_options_reach_the_work(pruner: MetaPruner, target: TaskData) -> None:
    assert pruner.adapt(target, **(FAST | {"steps": 0})).report.accuracy_at_step.keys() == {0}
    assert pruner.adapt(target, **FAST, ratio=0.4).report.ratio == 0.4
    assert len(pruner.adapt(target, **(FAST | {"neighbors": 1})).report.neighbors) == 1
    paper = pruner.adapt(target, steps=3, preset="paper", batch_size=16).report
    assert paper.head == "random"
    assert (paper.options["ema"], paper.options["statistics"], paper.options["vote"]) == (0.0, "moving", "sample")
    assert pruner.adapt(target, steps=3, preset="paper", head="ridge").report.head.startswith("ridge")
    assert pruner.adapt(target, **FAST, weighted=True).report.options["weighted"] is True
    baseline = pruner.adapt(target, **FAST, strategy="no-bank").report
    assert baseline.neighbors == []
    assert baseline.options["lr"] > pruner.adapt(target, **FAST).report.options["lr"]  # it has farther to go


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.0}, "between 0 and 1"),
        ({"ratio": 0}, "between 0 and 1"),
        ({"neighbors": 9}, "neighbors=9, but .* has only 4 entries"),
        ({"neighbors": 0}, "at least 1|between"),
        ({"by": "magic"}, re.escape(f"no similarity 'magic'; there are: {', '.join(SIMILARITIES.names())}")),
        ({"strategy": "luck"}, "one of auto, mvp"),
        ({"lerning_rate": 1}, "there is no option 'lerning_rate'"),
        ({"neighbor": 3}, "did you mean neighbors"),
        ({"lr": "fast"}, "must be a number"),
        ({"steps": -1}, "between 0"),
        ({"device": "cuda:99"}, "device"),
        ({"head": "best"}, "one of auto"),
        ({"precision": "fp4"}, "one of auto"),
        ({"steps": 2.5}, "must be a whole number"),
        ({"seed": True}, "must be a whole number"),
        ({"ratio": "0.5"}, "must be a number"),
        ({"flip": "no"}, "True or False"),
        ({"eval_steps": 5}, "must be whole numbers"),
        ({"synsets": "dog.n.01"}, "must be texts"),
        ({"device": "meta"}, "cannot be used"),
        ({"compare": True, "strategy": "no-bank"}, "chosen already"),
    ],
)
def test_wrong_options_are_refused_before_the_data_is_read(pruner: MetaPruner, options: dict, message: str) -> None:
    class Unread:
        def __len__(self) -> int:
            pytest.fail("the data was read")

    with pytest.raises((OptionError, BankError), match=message):
        pruner.adapt(Unread(), **options)


def test_the_recipe_follows_the_number_of_images() -> None:
    rates = [resolve_options(AdaptOptions(), TrainingOptions(), n)[1].lr for n in (5, 20, 500)]
    assert rates == sorted(set(rates))
    assert resolve_options(AdaptOptions(), TrainingOptions(lr=0.5), 20)[1].lr == 0.5
    assert resolve_options(AdaptOptions(), TrainingOptions(steps=3), 20)[1].lr == rates[1]
    assert resolve_options(AdaptOptions(preset="paper"), TrainingOptions(), 5)[1].lr == 0.01


def test_an_optimizer_brings_its_own_rate() -> None:
    of_family = resolve_options(AdaptOptions(), TrainingOptions(), 20, TRANSFORMER)[1]
    assert resolve_options(AdaptOptions(), TrainingOptions(optimizer="adamw"), 20, CONVOLUTIONAL)[1] == of_family
    assert of_family.lr < resolve_options(AdaptOptions(), TrainingOptions(optimizer="sgd"), 20, TRANSFORMER)[1].lr
    with pytest.raises(OptionError, match="must be one of sgd, adamw"):
        TrainingOptions(optimizer="adam")


@pytest.mark.slow
def test_options_may_come_as_objects_or_one_by_one(pruner: MetaPruner, target: TaskData) -> None:
    single = pruner.adapt(target, **FAST).report
    fast = dict(FAST)
    options = AdaptOptions(**{name: fast.pop(name) for name in list(fast) if name in option_fields(AdaptOptions)})
    whole = pruner.adapt(target, options, TrainingOptions(**fast)).report
    assert whole.accuracy_at_step == single.accuracy_at_step
    assert (whole.options, whole.given) == (single.options, single.given)
    assert pruner.adapt(target, options, TrainingOptions(**fast), steps=1).report.options["steps"] == 1


def test_former_names_of_options_and_values_still_work_with_a_warning(pruner: MetaPruner, target: TaskData) -> None:
    with pytest.warns(FutureWarning, match="'neighbours' is called 'neighbors' now"):
        assert merge_options(None, None, {"neighbours": 3})[0].neighbors == 3
    with pytest.warns(FutureWarning, match="'neighbours' is called 'neighbors' now"):
        assert merge_options(None, None, {"weights": "neighbours"})[0].weights == "neighbors"
    with pytest.warns(FutureWarning), pytest.raises(OptionError, match="are the same option"):
        merge_options(None, None, {"neighbours": 3, "neighbors": 3})
    with pytest.warns(FutureWarning) as warned:
        pruner.plan(target, neighbours=2)
    places = [warning.filename for warning in warned if warning.category is FutureWarning]
    assert places == [__file__]  # once, and at the user's line
    with pytest.warns(FutureWarning, match="'normalise'"):
        assert pruner.adapt(target, **FAST, strategy="smsp", normalise="none").report.options["normalize"] == "none"


def test_rates_are_those_of_where_the_weights_come_from() -> None:
    def rate(photos: bool = False, **options: str) -> float | None:
        return resolve_options(AdaptOptions(**options), TrainingOptions(), 5, photos=photos)[1].lr

    for strategy, statistics, loss in (
        ("mvp", "new", "labels"),
        ("no-bank", "new", "labels"),
        ("trunk", "auto", "features"),
    ):
        options, training = resolve_options(AdaptOptions(strategy=strategy), TrainingOptions(), 5)
        assert (options.statistics, training.loss) == (statistics, loss)
    recipe = CONVOLUTIONAL
    assert rate() == recipe.near["sgd"].few
    assert rate(strategy="trunk") == recipe.taught["sgd"].few
    assert rate(strategy="trunk", photos=True) == recipe.taught["sgd"].many
    assert rate(strategy="no-bank") == rate(photos=True) == recipe.far["sgd"].few


def test_few_images_leave_a_trunk_half_of_its_weights() -> None:
    def share(images_per_class: float, photos: bool = False, strategy: str = "trunk") -> float | None:
        options = AdaptOptions(strategy=strategy)
        return resolve_options(options, TrainingOptions(), images_per_class, photos=photos)[1].start_share

    assert share(5) == share(20) == 0.5
    assert share(100) == share(5, photos=True) == share(5, strategy="mvp") == 0.0
