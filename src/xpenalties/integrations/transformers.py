"""Penalties in Hugging Face's Trainer, as the function that it computes the loss by.

As in::

    loss = PipelineLoss(pipeline, reference=reference)
    trainer = Trainer(model, arguments, train_dataset=data, compute_loss_func=loss)
    loss.attach(trainer)
    trainer.train()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

from .._core.optional import require

with require("transformers", needed_by=__name__, install="xpenalties[transformers]"):
    import torch
    from transformers import Trainer
    from transformers.models.auto import modeling_auto

from .._penalties.spec import spec_of
from .._pipeline.penalty import Penalty
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._reports.report import Report
from ._named_inputs import LazyInputs, select_inputs
from ._trainer_state import Begins, Run

__all__ = ["PipelineLoss"]

_OF_TOKENS = {"logits", "reference"}
_UNSHIFTED = {
    *modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values(),
    *modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.values(),
} - set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


class PipelineLoss:
    """The Trainer's `compute_loss_func` with a pipeline's penalties.

    The pipeline is given a mapping: what the model returns, its ``"logits"`` above all; ``"labels"``, each beside the
    logits that predict it; ``"mask"``, where labels are not `ignore_index`; ``"items"``, their number in all batches of
    the optimizer's step; and once it is attached ``"reference"``, the reference's logits, and ``"params"``, the model's
    parameters by their paths, for `over_tree`. Its step is the Trainer's `global_step`.

    This package's penalties of logits and reference, named as their `inputs`, are masked and divided by the items, as
    the loss is, but where their options say otherwise (a "mean" over elements by the number of classes too). All others
    count in proportion to the items that a batch has: once in all, where gradients are accumulated over several.

    Parameters
    ----------
    pipe : Pipeline
    loss : callable, optional
        As `compute_loss_func`: ``loss(outputs, labels, num_items_in_batch=...)``. By default the cross-entropy of the
        labels, divided by the items.
    reference : torch.nn.Module or callable, optional
        Takes what the model is called with, as keywords, and returns outputs with logits: a frozen model, which is put
        into evaluation mode and onto the logits' device; for adapters a function that calls the model without them.
        Evaluated without gradients, and only where a penalty that is due names it or picks its own inputs.
    shift : bool, default True
        Whether logits predict the next label, as those of causal models; False for classifiers and masked models.
    ignore_index : int, default -100
        The label of what does not count, such as padding.
    prefix : str, default "penalties/"
        Of the names in the Trainer's logs.

    Attributes
    ----------
    report : Report or None
        Of the latest batch: its part of what the batches of an optimizer's step add up to.

    Raises
    ------
    TypeError
        For arguments of a wrong kind.

    Notes
    -----
    The loss of an evaluation has the penalties too, each of them whatever its `every` says. Without `attach` there are
    no steps, and a batch is taken for all of the items that it has by its labels.

    Examples
    --------
    >>> config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    >>> model = transformers.GPT2LMHeadModel(config)
    >>> pipe = Pipeline(
    ...     [
    ...         Penalty("entropy", inputs="logits", weight=0.1, options={"mode": "bonus", "from_logits": True}),
    ...         Penalty("z_loss", inputs="logits", weight=1e-4),
    ...     ]
    ... )
    >>> loss = PipelineLoss(pipe)
    >>> ids = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])
    >>> total = loss(model(input_ids=ids), ids.masked_fill(ids == 0, -100))
    >>> list(loss.report.regularizers)
    ['entropy', 'z_loss']
    """

    def __init__(
        self,
        pipe: Pipeline,
        *,
        loss: Callable[..., Any] | None = None,
        reference: Callable[..., Any] | None = None,
        shift: bool = True,
        ignore_index: int = -100,
        prefix: str = "penalties/",
    ) -> None:
        if not isinstance(pipe, Pipeline):
            raise TypeError(f"PipelineLoss: `pipe` must be a Pipeline, got {type(pipe).__qualname__}. Make one.")
        for name, given in (("loss", loss), ("reference", reference)):
            if not (given is None or callable(given)):
                raise TypeError(f"PipelineLoss: `{name}` must be callable, got {type(given).__qualname__}. Pass one.")
        if isinstance(reference, torch.nn.Module):
            reference.eval()
        self.pipe = pipe
        self.report: Report | None = None
        self._loss = loss
        self._reference = reference
        self._shift = shift
        self._ignored = ignore_index
        self._prefix = prefix
        self._run: Run | None = None  # the Trainer that is computing

    def attach(self, trainer: Trainer) -> None:
        """Let it know of a Trainer's steps, model and batches, and add to its logs.

        What is logged beside the Trainer's ``"loss"`` are means over the steps since the last time: contributions, and
        values over the steps on which a penalty counted.

        Raises
        ------
        ValueError
            For a Trainer that computes its loss by something else, has the reference itself as its model, or trains a
            model that predicts no next token with `shift=True`; for label smoothing, which no such function has; for an
            `ignore_index` other than the Trainer's own.
        """
        if trainer.compute_loss_func is not self:
            raise ValueError(
                f"PipelineLoss: the Trainer must compute its loss by this, got {trainer.compute_loss_func!r}. Pass "
                "`compute_loss_func=` it."
            )
        if trainer.model is self._reference:
            raise ValueError(
                "PipelineLoss: `reference` must not be what is trained, got the Trainer's model. Pass a copy of it."
            )
        model = getattr(trainer.model, "_orig_mod", trainer.model)  # of one that torch.compile has wrapped
        if hasattr(model, "get_base_model"):  # it has adapters
            model = model.get_base_model()
        kinds = {kind.__name__ for kind in type(model).__mro__}
        encodes = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        if self._shift and (encodes or not kinds.isdisjoint(_UNSHIFTED)):
            raise ValueError(
                "PipelineLoss: `shift` must be False for a model that predicts no next token, got True for "
                f"{type(model).__name__}. Pass shift=False."
            )
        if self._ignored != -100:
            raise ValueError(
                "PipelineLoss: `ignore_index` must be -100, by which the Trainer counts items, got "
                f"{self._ignored}. Let the collator put that in its place."
            )
        if trainer.args.label_smoothing_factor != 0:
            raise ValueError(
                "PipelineLoss: label smoothing must be off, which the Trainer leaves to its own loss, got "
                f"{trainer.args.label_smoothing_factor}. Pass a `loss` that smooths."
            )
        run = Run(trainer)
        trainer.add_callback(Begins(run))
        compute_loss, log = trainer.compute_loss, trainer.log

        @wraps(compute_loss)
        def computed(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            run.called_with = {name: x for name, x in inputs.items() if name != "labels"}
            self._run = run
            try:
                return compute_loss(model, inputs, *args, **kwargs)
            finally:
                self._run, run.called_with = None, {}

        @wraps(log)
        def logged(logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            if "loss" in logs:
                logs.update({self._prefix + name: mean for name, mean in run.means().items()})
            log(logs, *args, **kwargs)

        trainer.compute_loss, trainer.log = computed, logged

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        """The total, a 0-d tensor, as the Trainer asks for it."""
        logits = _logits("the model", outputs)
        shifted = None if self._run is None else self._run.called_with.get("shift_labels")
        beside = self._beside(logits, labels, shifted)
        mask = beside != self._ignored if beside.shape == logits.shape[:-1] else _all(logits)
        counted = self._counted(labels, shifted).to(logits.device)
        whole = num_items_in_batch is None
        items = torch.as_tensor(torch.sum(mask) if whole else num_items_in_batch, device=logits.device)
        items = items.flatten()[0]  # torch.nn.DataParallel has one for each device
        items = torch.where(items > 0, items, 1)  # 0 where no label of the step counts
        share: Any = 1.0 if whole else counted / items
        if not whole and beside.shape != logits.shape[:-1]:  # the Trainer counts each class' label
            items = torch.sum(mask) / share
        given = {**outputs, "logits": logits, "labels": beside, "mask": mask, "items": items}
        step, later = None, {}
        if self._run is not None:
            run = self._run
            step = run.trainer.state.global_step
            later["params"] = lambda: dict(run.trainer.model.named_parameters())
            if self._reference is not None:
                later["reference"] = lambda: self._of_reference(run, logits)
        pipe = self.pipe if torch.is_grad_enabled() else _on_each_step(self.pipe)
        asked = select_inputs([p for p in pipe if p.enabled and p.is_due(step)], given, LazyInputs(**later))
        if self._loss is None:
            summed = torch.nn.functional.cross_entropy(
                logits.float().flatten(0, -2), beside.flatten(), ignore_index=self._ignored, reduction="sum"
            )
            base = summed / items
        else:
            base = self._loss(outputs, labels, num_items_in_batch=num_items_in_batch)
        parts = {p.name: _of_tokens(p, mask, items, logits.shape[-1]) for p in pipe}
        bound = [parts[p.name] or _in_part(p, share) for p in pipe]
        loss = RegularizedLoss(lambda _: base, Pipeline(bound, name=pipe.name))
        total, self.report = loss.compute(asked, step=step)
        if self._run is not None and torch.is_grad_enabled():
            self._run.add(self.report, share, {name for name, part in parts.items() if part is None})
        return total

    def _beside(self, logits: Any, labels: Any, shifted: Any) -> Any:
        """The labels that the logits predict; where a collator shifts them itself, what it gives."""
        if labels is None:
            raise ValueError("PipelineLoss: the batches must have 'labels', got none. Let the collator make them.")
        if self._shift and shifted is not None:
            labels = shifted
        elif self._shift:
            labels = torch.nn.functional.pad(labels, (0, 1), value=self._ignored)[..., 1:]
        labels = labels.to(logits.device)
        fits = labels.shape == logits.shape[:-1] and logits.ndim >= 2 + self._shift
        if not fits and (self._loss is None or self._shift):
            remedy = "Pass shift=False where a model predicts no next token." if self._shift else "Pass a `loss`."
            raise ValueError(
                f"PipelineLoss: labels must be as logits but for the classes, got {tuple(labels.shape)} and "
                f"{tuple(logits.shape)}, shift={self._shift}. {remedy}"
            )
        if self._loss is None and (labels.is_floating_point() or logits.shape[-1] == 1):
            raise ValueError(
                f"PipelineLoss: labels must be classes for the cross-entropy, got {labels.dtype} for "
                f"{logits.shape[-1]} of them. Pass a `loss`."
            )
        return labels

    def _counted(self, labels: Any, shifted: Any) -> Any:
        """The items of a batch as the Trainer counts them, which for many models is before labels are shifted."""
        if shifted is not None:
            return torch.sum(shifted != self._ignored)
        shifts = self._shift if self._run is None else getattr(self._run.trainer, "_loss_shifts_labels", False)
        return torch.sum((labels[..., 1:] if shifts else labels) != self._ignored)

    def _of_reference(self, run: Run, logits: Any) -> Any:
        reference = self._reference
        assert reference is not None
        if isinstance(reference, torch.nn.Module):
            reference.to(logits.device)  # nothing, where it is there
        with torch.no_grad():
            found = _logits("`reference`", reference(**run.called_with))
        if found.shape != logits.shape:
            raise ValueError(
                f"PipelineLoss: the logits of `reference` must have the model's shape, got {tuple(found.shape)} in "
                f"place of {tuple(logits.shape)}. Use one of the same vocabulary."
            )
        return found


def _all(logits: Any) -> Any:
    return torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)


def _on_each_step(pipe: Pipeline) -> Pipeline:
    """For an evaluation, which is to be the same at any step but for the weights."""
    return Pipeline([replace(p, every=1) for p in pipe], name=pipe.name)


def _logits(whose: str, outputs: Any) -> Any:
    if not isinstance(outputs, Mapping) or outputs.get("logits") is None:
        got = ", ".join(map(repr, outputs)) if isinstance(outputs, Mapping) else type(outputs).__qualname__
        raise TypeError(f"PipelineLoss: {whose} must return a mapping with 'logits', got {got}. Use return_dict=True.")
    return outputs["logits"]


def _of_tokens(penalty: Penalty, mask: Any, items: Any, classes: int) -> Penalty | None:
    """A penalty of logits over the tokens that count, divided by the items; None for any other."""
    names = {penalty.inputs} if isinstance(penalty.inputs, str) else penalty.inputs
    spec = spec_of(penalty.fn)
    if spec is None or names is None or callable(names) or not _OF_TOKENS.issuperset(names):
        return None
    shape = spec.shape_of_terms(penalty.options)
    if shape == "rows":
        shared = {"where": mask, "normalizer": items}
    elif shape == "elements":
        mean = penalty.options.get("reduction", spec.reduction) == "mean"
        shared = {"where": mask[..., None], "normalizer": items * classes if mean else items}
    else:
        return None
    return replace(penalty, options={**shared, **penalty.options})


def _in_part(penalty: Penalty, share: Any) -> Penalty:
    """A penalty of a whole step as this batch's part of it."""
    weight = penalty.weight
    return replace(penalty, weight=(lambda step: weight(step) * share) if callable(weight) else weight * share)
