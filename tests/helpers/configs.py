"""Invalid configurations with their errors, functions to register, and helpers that read and check configurations."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import jsonschema

import xpenalties as xp
from tests.helpers.samples import mine, pair
from xpenalties import Pipeline, config_schema
from xpenalties._core.registry import REGISTERED
from xpenalties._pipeline.hashing import Static

__all__ = ["LINEAR", "NAMED", "REFUSED", "VALIDATOR", "anything", "both", "entry", "halving", "loads", "same", "weight"]


def halving(step: Any) -> Any:
    return 0.5**step


def both(data: Any) -> Any:
    return data["a"], data["b"]


def anything(x: Any, **options: Any) -> Any:
    return xp.l1(x)


NAMED = {"mine": mine, "a pair": pair, "halving": halving, "both": both, "anything": anything}


def same(a: Pipeline, b: Pipeline) -> bool:
    """Compare the static parts, as a compiled function does, the weights and the reprs."""
    return (
        Static(a.penalties, a.name) == Static(b.penalties, b.name)
        and [p.weight for p in a] == [p.weight for p in b]
        and repr(a) == repr(b)
    )


def entry(**keys: Any) -> Any:
    return [{"penalty": "l1", **keys}]


def weight(name: str, **arguments: Any) -> Any:
    return entry(weight={"schedule": name, **arguments})


LINEAR = {"start": 0.0, "end": 1.0, "steps": 10}
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no table": (3, TypeError, r"^from_config: must be a table, got 3\. Write keys with values\.$"),
    "no version": ({"penalties": []}, ValueError, r"^from_config: `version` is missing\. Add version 1\.$"),
    "version": (
        {"version": 2},
        ValueError,
        r"^from_config: `version` must be 1, the only one that is read, got 2\. Write 1, or upgrade xpenalties",
    ),
    "version true": ({"version": True, "penalties": []}, ValueError, r"`version` must be 1, .*, got True"),
    "no penalties": ({"version": 1}, ValueError, r"^from_config: `penalties` is missing\. Add it\.$"),
    "unknown": (
        {"version": 1, "penaltys": []},
        ValueError,
        r"^from_config: unknown key 'penaltys'\. The keys are \$schema, .*\. Did you mean 'penalties'\?$",
    ),
    "$schema": ({"version": 1, "$schema": 3, "penalties": []}, TypeError, r"^from_config: \$schema: must be a string"),
    "name": ({"version": 1, "name": 3, "penalties": []}, TypeError, r"^from_config: name: must be a string, got 3"),
    "penalties": ({"version": 1, "penalties": 3}, TypeError, r"penalties: must be a list or a table of penalties"),
    "penalty no table": ([3], TypeError, r"^from_config: penalties\[0\]: must be a table, got 3"),
    "no penalty": ([{"weight": 1}], ValueError, r"^from_config: penalties\[0\]: `penalty` is missing"),
    "penalty": (entry(penalty=3), TypeError, r"penalties\[0\]\.penalty: must be a string, got 3"),
    "penalty unknown": (
        entry(penalty="hubr"),
        ValueError,
        r"penalties\[0\]\.penalty: no penalty is named 'hubr'\. The names are .*\. Did you mean 'huber'\?$",
    ),
    "penalty of no one": (entry(penalty="?"), ValueError, r"Register your own penalty first, with `register`"),
    "key": (entry(wieght=1), ValueError, r"penalties\[0\]: unknown key 'wieght'\. .*Did you mean 'weight'"),
    "empty name": (entry(name=""), ValueError, r"penalties\[0\]\.name: must not be empty\. Leave it out"),
    "a report's name": (entry(name="base_loss"), ValueError, r"penalties\[0\]: Penalty: `name` must be a string that"),
    "names": (entry() + entry(), ValueError, r"^from_config: Pipeline: names must be unique, got 'l1' twice"),
    "weight": (entry(weight=-1), ValueError, r"penalties\[0\]\.weight: `weight` must be in \[0, inf\), got -1\.0"),
    "weight text": (entry(weight="1"), TypeError, r"\.weight: must be a number, got '1'\. Write a number, without quo"),
    "weight true": (entry(weight=True), TypeError, r"\.weight: must be a number, got True\. Write a number\.$"),
    "weight nan": (entry(weight=math.nan), ValueError, r"`weight` must be in \[0, inf\), got nan"),
    "weight callable": (entry(weight=halving), TypeError, r"`weight` must be a number in \[0, inf\), got function"),
    "weight too long": (entry(weight=10**400), ValueError, r"`weight` must be in \[0, inf\), got inf"),
    "weight too short": (entry(weight=-(10**400)), ValueError, r"`weight` must be in \[0, inf\), got -inf"),
    "no schedule": (
        entry(weight={"shedule": "linear"}),
        ValueError,
        r"weight: a table is a schedule and must have the key `schedule`, got 'shedule'\. Did you mean 'schedule'\?$",
    ),
    "empty schedule": (entry(weight={}), ValueError, r"must have the key `schedule`, got none\. Pieces are a list of"),
    "schedule": (weight("cosin"), ValueError, r"weight\.schedule: no schedule is named 'cosin'\. .*mean 'cosine'"),
    "schedule 3": (weight(3), TypeError, r"weight\.schedule: must be a string, got 3"),  # type: ignore[arg-type]
    "argument": (weight("linear", ends=1), ValueError, r"weight: unknown key 'ends'\. .*Did you mean 'end'"),
    "arguments": (weight("linear", start=1), TypeError, r"weight: linear: missing a required argument: 'end'"),
    "argument's value": (weight("linear", **LINEAR | {"steps": 0}), ValueError, r"weight: linear: `steps` must be at"),
    "argument nan": (weight("linear", **LINEAR | {"end": math.nan}), ValueError, r"weight\.end: must be finite, got"),
    "argument callable": (weight("warmup", after=halving, steps=1), TypeError, r"weight\.after: must be a number, a"),
    "own schedule": (weight("halving", rate=1), ValueError, r"weight: unknown key 'rate'\. The keys are schedule\."),
    "deep schedule": (
        weight("piecewise", pieces=[[0, 1.0], [3, {"schedule": "linear", **LINEAR, "begn": 1}]]),
        ValueError,
        r"penalties\[0\]\.weight\.pieces\[1\]\[1\]: unknown key 'begn'\. .*Did you mean 'begin'",
    ),
    "pieces": (
        weight("piecewise", pieces={"0": 1.0}),
        ValueError,
        r"weight\.pieces: a table is a schedule .*, got '0'\. Pieces are a list of pairs\.$",
    ),
    "inputs": (entry(inputs=3), TypeError, r"penalties\[0\]\.inputs: must be a name, a list .* or a table, got 3"),
    "inputs of 3": (entry(inputs=["a", 3]), TypeError, r"inputs\[1\]: must be a string, got 3"),
    "inputs callable": (entry(inputs=both), TypeError, r"inputs: must be a name, .* or a table, got <function both"),
    "inputs' key": (entry(inputs={"attribute": "a"}), TypeError, r"penalties\[0\]: penalty 'l1': the keys of `inputs`"),
    "inputs of nothing": (entry(inputs={}), ValueError, r"inputs: must not be empty\. Write parameter = name, or"),
    "inputs, a key of a pick": (entry(inputs={"attributes": "a", "x": "b"}), ValueError, r"inputs: unknown key 'x'\. "),
    "inputs by parameter": (
        entry(penalty="kl_divergence", inputs={"log_p": "a", "log_r": "b"}),
        TypeError,
        r"penalties\[0\]: penalty 'kl_divergence': the keys of `inputs` must be parameters of kl_divergence, got",
    ),
    "inputs by parameter, missing": (
        entry(penalty="kl_divergence", inputs={"log_p": "a"}),
        TypeError,
        r"penalties\[0\]: penalty 'kl_divergence': `inputs` must have an input for `log_q` of kl_divergence,",
    ),
    "inputs by parameter, 3": (entry(inputs={"x": 3}), TypeError, r"inputs\.x: must be a string, got 3"),
    "inputs by parameter, key 3": (entry(inputs={3: "a"}), TypeError, r"inputs: must be a string, got 3"),
    "inputs by parameter, pick": (
        entry(inputs={"x": {"attributes": "a", "function": "both"}}),
        ValueError,
        r"penalties\[0\]\.inputs\.x: must have one key, .* got 2",
    ),
    "inputs by parameter, reduction": (
        entry(inputs={"x": "a", "reduction": "b"}),
        TypeError,
        r"got 'reduction'\. The parameters are x, where, weights, normalizer\.",
    ),
    "inputs twice": (entry(inputs={"attributes": "a", "function": "both"}), ValueError, r"must have one key, .* got 2"),
    "function": (entry(inputs={"function": "boht"}), ValueError, r"function: no function is named 'boht'\. .*'both'"),
    "function 3": (entry(inputs={"function": 3}), TypeError, r"inputs\.function: must be a string, got 3"),
    "attributes": (entry(inputs={"attributes": []}), ValueError, r"inputs\.attributes: must not be empty\. Name one"),
    "attributes 3": (entry(inputs={"attributes": ["a", 3]}), TypeError, r"inputs\.attributes: must be a string, got 3"),
    "options": (entry(options=[]), TypeError, r"penalties\[0\]\.options: must be a table, got \[\]"),
    "option": (
        entry(penalty="kl_divergence", options={"dirction": "reverse"}),
        ValueError,
        r"penalties\[0\]\.options: unknown key 'dirction'\. The keys are direction, .*Did you mean 'direction'\?$",
    ),
    "where": (entry(options={"where": True}), ValueError, r"`where` is an input of l1: write inputs = \{ x = \.\.\."),
    "option's value": (
        entry(penalty="huber", options={"delta": -1}),
        ValueError,
        r"^from_config: penalties\[0\]: huber: `delta` must be in \(0, inf\), got -1\.0",
    ),
    "option of a kind": (entry(penalty="l2", options={"center": [1]}), TypeError, r"options\.center: must be a numb"),
    "own option": (entry(penalty="a pair", options={"scal": 1}), TypeError, r"\[0\]: penalty 'a pair': `scal` is not"),
    "own option of a kind": (
        entry(penalty="anything", options={"a": [{"b": both}]}),
        TypeError,
        r"penalties\[0\]\.options\.a\[0\]\.b: must be a number, a string or a boolean, got <function both",
    ),
    "own option's key": (entry(penalty="anything", options={3: 1}), TypeError, r"options: must be a string, got 3"),
    "own option inf": (entry(penalty="anything", options={"a": math.inf}), ValueError, r"options\.a: must be finite"),
    "tree": (entry(tree=True), TypeError, r"penalties\[0\]\.tree: must be a table, got True"),
    "tree's key": (entry(tree={"mach": "a"}), ValueError, r"\.tree: unknown key 'mach'\. The keys are match, exclude"),
    "pattern": (entry(tree={"match": "("}), ValueError, r"\.tree: over_tree: `match` must be a regular expression, g"),
    "no pattern": (entry(tree={"exclude": []}), ValueError, r"\.tree: over_tree: `exclude` must have a pattern"),
    "pattern 3": (entry(tree={"match": ["a", 3]}), TypeError, r"\.tree\.match\[1\]: must be a string, got 3"),
    "tree of functions": (
        entry(penalty="gradient_penalty", tree={}),
        TypeError,
        r"\.tree: over_tree: `fn` must take arrays, got 'gradient_penalty'",
    ),
    "tree's option": (
        entry(penalty="huber", tree={}, options={"delta": -1}),
        ValueError,
        r"penalties\[0\]\.tree: huber: `delta` must be in",
    ),
    "every": (entry(every=0), ValueError, r"penalties\[0\]: Penalty: `every` must be at least 1, got 0"),
    "enabled": (entry(enabled=1), TypeError, r"penalties\[0\]\.enabled: must be true or false, got 1\. Write true or"),
    "enabled text": (entry(enabled="yes"), TypeError, r"\.enabled: .*, got 'yes'\. Write true or false, without quo"),
    "every text": (entry(every="2"), TypeError, r"\.every: must be an integer, got '2'\. Write an integer, without"),
    "flag text": (
        entry(penalty="kl_divergence", options={"from_logits": "true"}),
        TypeError,
        r"\.options\.from_logits: must be true or false, got 'true'\. Write true or false, without quotes\.$",
    ),
    "axis text": (
        entry(penalty="kl_divergence", options={"axis": "0"}),
        TypeError,
        r"\.options\.axis: must be an integer, got '0'\. Write an integer, without quotes\.$",
    ),
    "normalizer text": (entry(options={"normalizer": "3"}), TypeError, r"\.normalizer: must be a number, got '3'\."),
    "argument text": (
        weight("linear", **LINEAR | {"end": "1"}),
        TypeError,
        r"\[0\]\.weight\.end: must be a number, got '1'\. Write a number, without quotes\.$",
    ),
    "name text": (
        entry(penalty="entropy", options={"mode": 3}),
        TypeError,
        r"entropy: `mode` must be one of 'penalty', 'bonus', got 3",
    ),
    "option outside": (
        entry(penalty="entropy", mode="bonus"),
        ValueError,
        r"key 'mode'\. .*, on_error\. `mode` is an option of entropy: write options = \{ mode = \.\.\. \}\.$",
    ),
    "option outside, by name": (
        {"version": 1, "penalties": {"entropy": {"mode": "bonus"}}},
        ValueError,
        r"^from_config: penalties\.entropy: .* `mode` is an option of entropy: write options = \{ mode = \.\.\. \}\.$",
    ),
    "option outside, misspelled": (
        entry(penalty="entropy", from_logit=True),
        ValueError,
        r"key 'from_logit'\. .* Did you mean options = \{ from_logits = \.\.\. \}\?$",
    ),
    "own option outside": (
        entry(penalty="a pair", scale=2.0),
        ValueError,
        r"`scale` is a parameter of a pair: write options = \{ scale = \.\.\. \} or inputs = \{ x = \.\.\., y = \.\.\.",
    ),
    "input outside": (
        entry(penalty="entropy", log_p="a"),
        ValueError,
        r"`log_p` is an input of entropy: write inputs = \{ log_p = \.\.\. \}\.$",
    ),
    "mask": (entry(mask="a"), ValueError, r"key 'mask'\. .* Did you mean inputs = \{ x = \.\.\., where = \.\.\. \}\?$"),
    "mask in options": (
        entry(options={"mask": "a"}),
        ValueError,
        r"options: unknown key 'mask'\. .* Did you mean inputs = \{ x = \.\.\., where = \.\.\. \}\?$",
    ),
    "weight in options": (
        entry(options={"weight": 1}),
        ValueError,
        r"options: .* `weight` is a key of the penalty: write `weight` beside `options`\.$",
    ),
    "strength": (entry(strength=1), ValueError, r"unknown key 'strength'\. .* Did you mean 'weight'\?$"),
    "match outside": (
        entry(match="a"),
        ValueError,
        r"unknown key 'match'\. .* `match` is a key of `tree`: write tree = \{ match = \.\.\. \}\.$",
    ),
    "penalty outside": (
        {"version": 1, "l1": {"weight": 1}},
        ValueError,
        r"key 'l1'\. .*, penalties\. A penalty belongs in `penalties`: write \[penalties\.l1\]\.$",
    ),
    "named penalty outside": (
        {"version": 1, "decay": {"penalty": "l1"}},
        ValueError,
        r"key 'decay'\. .* write \[penalties\.decay\]\.$",
    ),
    "weight outside": ({"version": 1, "l1": 0.5}, ValueError, r"key 'l1'\. .* write `l1` below \[penalties\]\.$"),
    "on_error": (entry(on_error="dropp"), ValueError, r"penalties\[0\]: .*got 'dropp'\. Did you mean 'drop'"),
    "by name": ({"version": 1, "penalties": {"l1": {"wieght": 1}}}, ValueError, r"from_config: penalties\.l1: unknown"),
    "by name, name": ({"version": 1, "penalties": {"l1": {"name": "a"}}}, ValueError, r"\.l1: unknown key 'name'"),
    "by name, empty": ({"version": 1, "penalties": {"": {"penalty": "l1"}}}, ValueError, r"name: must not be empty"),
    "by name, 3": ({"version": 1, "penalties": {3: 1}}, TypeError, r"penalties: name: must be a string, got 3"),
    "by name, schedule": (
        {"version": 1, "penalties": {"l1": {"shedule": "linear"}}},
        ValueError,
        r"penalties\.l1: unknown key 'shedule'\. .*Did you mean 'schedule'",
    ),
    "by name, unknown": ({"version": 1, "penalties": {"l3": 1}}, ValueError, r"penalties\.l3\.penalty: no penalty is"),
}  # fmt: skip


def VALIDATOR() -> Any:  # noqa: N802 - made when the names are registered
    return validator(tuple(REGISTERED))


@functools.cache
def validator(names: tuple[str, ...]) -> Any:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    return jsonschema.Draft202012Validator(schema)


def loads(config: Any) -> bool:
    try:
        Pipeline.from_config(config)
    except (TypeError, ValueError):
        return False
    return True
