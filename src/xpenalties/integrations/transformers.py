"""Penalties in Hugging Face's Trainer, through its `compute_loss_func`.

For example::

    loss = PipelineLoss(pipeline, reference=reference)
    trainer = Trainer(model, arguments, train_dataset=data, compute_loss_func=loss)
    loss.attach(trainer)
    trainer.train()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any

from .._core.optional import require
from .._core.shown import shown

with require("transformers", needed_by=__name__, install="xpenalties[transformers]"):
    import torch
    from transformers import Trainer

from .._core.checks import POSITIVE_INTEGER, check_argument
from .._pipeline.checked_pipeline import check_pipeline
from .._pipeline.penalty_inputs import names_in
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._pipeline.wrt import Recorded
from .._reports.report import Report
from ._named_inputs import LazyInputs, check_inputs, select_inputs
from ._torch_tracking import add_named, named_parameters, recorded
from ._transformers_labels import Labels, items_and_share
from ._transformers_pipeline import bound_pipeline, evaluated_each_step
from ._transformers_reference import check_reference, without_cache
from ._transformers_state import ResetOnBegin, TrainerRun

__all__ = ["PipelineLoss"]

_TRAINERS = frozenset({"params", "reference"})  # inputs that only exist after `attach`


class PipelineLoss:
    """The Trainer's `compute_loss_func`, with a pipeline's penalties.

    The pipeline gets a mapping:

    - the model's outputs, such as ``"logits"``
    - ``"labels"``, aligned with the logits that predict them
    - ``"mask"``, True where a label is not `ignore_index`
    - ``"items"``, the number of labels that count in all batches of the optimizer's step
    - after `attach`, ``"reference"``, the reference's logits
    - after `attach`, ``"params"``, the model's parameters by path, for `over_tree`

    The step is the Trainer's `global_step`.

    Like the loss, built-in penalties whose arrays are logits or reference are masked by the labels and divided by the
    number of items. If a penalty's options or its mapping of `inputs` set `where` or `normalizer`, these are used
    instead. (A "mean" over elements is also divided by the number of classes.) All other penalties are scaled by the
    batch's share of the items: with gradient accumulation, they count once for all batches of a step.

    Parameters
    ----------
    pipe : Pipeline
    loss : callable, optional
        A `compute_loss_func`: ``loss(outputs, labels, num_items_in_batch=...)``. By default the cross-entropy of the
        labels, divided by the items.
    reference : torch.nn.Module or callable, optional
        A frozen model. It takes the model's keyword arguments, and returns outputs with logits. A module is put into
        evaluation mode, moved to the logits' device, and called without a cache, as the Trainer calls its model. For
        adapters, pass a function that calls the model without them. It runs without gradients, and only if a penalty
        that is due names it or picks its own inputs.
    shift : bool, default True
        Whether logits predict the next label, as in causal models. Pass False for classifiers and masked models.
    ignore_index : int, default -100
        The label of tokens that do not count, such as padding.
    prefix : str, default "penalties/"
        Prefix of the names in the Trainer's logs.
    track_every : int, optional
        Also report and log gradient norms, on every `track_every`-th step, see `Pipeline.compute`. By default never. It
        needs `attach`. Each part of the loss takes one more backward pass through the model, for each batch.
    wrt : str, tensor, module, or iterable of them, optional
        Compute gradient norms with respect to these: inputs by name, tensors, or a module's parameters. By default
        ``"params"``.

    Attributes
    ----------
    report : Report or None
        The report of the latest batch. The reports of a step's batches add up to the step's.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, or a built-in penalty does not name its inputs. A call raises ValueError if a
        penalty needs `attach`, and you have not called it.

    Notes
    -----
    In an evaluation, the loss includes all penalties, whatever their `every`. Without `attach`, the pipeline gets no
    step, model or reference, and the items are those of the batch.

    A gradient norm is that of one batch in one process, because norms do not add up. With gradient accumulation, the
    loss and penalties of a batch are only a share of those of the step. The logs have the norms divided by this share,
    so they do not depend on the number of batches. If the model uses gradient checkpointing, pass
    ``gradient_checkpointing_kwargs={"use_reentrant": False}``: otherwise PyTorch cannot compute these gradients, and
    the report says so.

    Examples
    --------
    >>> config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    >>> model = transformers.GPT2LMHeadModel(config)
    >>> pipe = Pipeline(
    ...     [
    ...         Penalty("entropy", inputs="logits", weight=0.1, mode="bonus", from_logits=True),
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
        track_every: int | None = None,
        wrt: Any = None,
    ) -> None:
        check_pipeline("PipelineLoss", "pipe", pipe)
        check_inputs("PipelineLoss", pipe, example="logits")
        for name, fn in (("loss", loss), ("reference", reference)):
            if not (fn is None or callable(fn)):
                raise TypeError(f"PipelineLoss: `{name}` must be callable, got {type(fn).__qualname__}. Pass one.")
        if isinstance(reference, torch.nn.Module):
            reference.eval()
        if track_every is not None:
            track_every = check_argument("PipelineLoss", POSITIVE_INTEGER, "track_every", track_every)
        elif wrt is not None:
            raise ValueError(f"PipelineLoss: `wrt` must come with `track_every`, got {shown(wrt)} without. Pass it.")
        self.pipe = pipe
        self.track_every = track_every
        self.wrt = ("params",) if wrt is None else recorded("PipelineLoss", wrt).items
        self.report: Report | None = None
        self._loss = loss
        self._reference = reference
        self._labels = Labels(shift, ignore_index, are_classes=loss is None)
        self._prefix = prefix
        self._run: TrainerRun | None = None  # while a Trainer computes its loss

    def attach(self, trainer: Trainer) -> None:
        """Connect to a Trainer, to use its steps, model and batches, and to add to its logs.

        The logs get means over the steps since the last log, next to the Trainer's ``"loss"``: contributions, and the
        values of penalties over the steps in which they are evaluated.

        Raises
        ------
        ValueError
            If the Trainer has another `compute_loss_func`. If the reference is the Trainer's model, or calls it. If
            `shift` is True and the model does not predict the next token. If label smoothing is on, which the Trainer
            does not pass on. If `ignore_index` is not the Trainer's.
        """
        self._check_trainer(trainer)
        run = TrainerRun(trainer)
        trainer.add_callback(ResetOnBegin(run))
        trainer.compute_loss = _ComputeLoss(self, run, trainer.compute_loss)
        trainer.log = _Log(run, self._prefix, trainer.log)

    def _check_trainer(self, trainer: Trainer) -> None:
        if trainer.compute_loss_func is not self:
            raise ValueError(
                "PipelineLoss: the Trainer's `compute_loss_func` must be this loss, got "
                f"{shown(trainer.compute_loss_func)}. Pass it to the Trainer."
            )
        check_reference(self._reference, trainer.model)
        self._labels.check(trainer.model)
        if trainer.args.label_smoothing_factor != 0:
            raise ValueError(
                "PipelineLoss: label smoothing must be off, because only the Trainer's own loss applies it, got "
                f"{trainer.args.label_smoothing_factor}. Pass a `loss` that smooths."
            )

    @contextmanager
    def _during(self, run: TrainerRun, inputs: Mapping[str, Any]) -> Iterator[None]:
        """Give the loss a Trainer's step, model and batch, inside the context manager."""
        self._run, run.called_with = run, {name: x for name, x in inputs.items() if name != "labels"}
        try:
            yield
        finally:
            self._run, run.called_with = None, {}

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        """Return the total, a 0-d tensor. The Trainer calls this."""
        logits = _logits("the model", outputs)
        shifted = None if self._run is None else self._run.called_with.get("shift_labels")
        aligned, mask = self._labels.aligned(logits, labels, shifted)
        trainer = None if self._run is None else self._run.trainer
        count = self._labels.count(labels, shifted, trainer)
        items, share = items_and_share(count, aligned, mask, num_items_in_batch)
        inputs = {**outputs, "logits": logits, "labels": aligned, "mask": mask, "items": items}
        step = None if self._run is None else self._run.trainer.state.global_step
        pipe = self.pipe if torch.is_grad_enabled() else evaluated_each_step(self.pipe)
        if self._run is None:
            _check_needs_no_trainer(pipe, _TRAINERS - set(inputs))
        due = [p for p in pipe if p.enabled and p.is_due(step)]
        lazy = self._lazy_inputs(logits)
        selected = select_inputs(due, inputs, lazy)
        wrt = self._wrt(step)
        add_named("PipelineLoss", selected, wrt, inputs, lazy)
        if self._loss is None:
            base = self._labels.cross_entropy(logits, aligned) / items
        else:
            base = self._loss(outputs, labels, num_items_in_batch=num_items_in_batch)
        bound, scaled_names = bound_pipeline(pipe, mask, items, share, logits.shape[-1])
        regularized = RegularizedLoss(lambda _: base, bound)
        total, self.report = regularized.compute(selected, step=step, track_grad_norms=wrt is not None, wrt=wrt)
        if self._run is not None and torch.is_grad_enabled():
            self._run.add(self.report, share, scaled_names)
        return total

    def _wrt(self, step: Any) -> Recorded | None:
        """Return what this step's gradient norms are with respect to, None if there are none."""
        if self._run is None or self.track_every is None or step % self.track_every or not torch.is_grad_enabled():
            return None
        return recorded("PipelineLoss", self.wrt, getattr(self._run.trainer.accelerator, "scaler", None))

    def _lazy_inputs(self, logits: Any) -> LazyInputs:
        """Return the inputs that are made only if a penalty needs them."""
        run = self._run
        if run is None:
            return LazyInputs()
        makers: dict[str, Callable[[], Any]] = {"params": lambda: named_parameters(run.trainer.model)}
        if self._reference is not None:
            makers["reference"] = lambda: self._reference_logits(run, logits)
        return LazyInputs(**makers)

    def _reference_logits(self, run: TrainerRun, logits: Any) -> Any:
        reference = self._reference
        assert reference is not None
        if isinstance(reference, torch.nn.Module):
            reference.to(logits.device)  # does nothing if it is there already
        with torch.no_grad():
            result = _logits("`reference`", reference(**without_cache(reference, run.called_with)))
        if result.shape != logits.shape:
            raise ValueError(
                f"PipelineLoss: the logits of `reference` must have the model's shape, got {tuple(result.shape)} "
                f"instead of {tuple(logits.shape)}. Use a model with the same vocabulary."
            )
        return result


class _ComputeLoss:
    """Replace a Trainer's `compute_loss`, so that the loss can use the Trainer during the call."""

    def __init__(self, loss: PipelineLoss, run: TrainerRun, original: Callable[..., Any]) -> None:
        self._loss = loss
        self._run = run
        self._original = original
        update_wrapper(self, original)

    def __call__(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        with self._loss._during(self._run, inputs):
            return self._original(model, inputs, *args, **kwargs)


class _Log:
    """Replace a Trainer's `log`, so that it also logs the means of the penalties."""

    def __init__(self, run: TrainerRun, prefix: str, original: Callable[..., Any]) -> None:
        self._run = run
        self._prefix = prefix
        self._original = original
        update_wrapper(self, original)

    def __call__(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs.update({self._prefix + name: mean for name, mean in self._run.means().items()})
        self._original(logs, *args, **kwargs)


def _check_needs_no_trainer(pipe: Pipeline, missing: frozenset[str]) -> None:
    """Check that no penalty needs the Trainer's step, or inputs that are missing without a Trainer."""
    for penalty in pipe:
        needed = sorted(missing.intersection(names_in(penalty.inputs)))
        if callable(penalty.weight) or penalty.every != 1:
            needed.append("step")
        if penalty.enabled and needed:
            raise ValueError(
                f"PipelineLoss: the loss must be attached to the Trainer, because penalty {penalty.name!r} needs the "
                f"{' and '.join(needed)}, got one that is not. Call attach(trainer) first."
            )


def _logits(source: str, outputs: Any) -> Any:
    if not isinstance(outputs, Mapping) or outputs.get("logits") is None:
        got = ", ".join(map(repr, outputs)) if isinstance(outputs, Mapping) else type(outputs).__qualname__
        raise TypeError(f"PipelineLoss: {source} must return a mapping with 'logits', got {got}. Use return_dict=True.")
    return outputs["logits"]
