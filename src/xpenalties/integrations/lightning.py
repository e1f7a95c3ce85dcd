"""Penalties in Lightning's loop: a callback that adds a pipeline to a module's loss, which stays as it is.

As in::

    callback = PipelineCallback(pipeline, activities={"hidden": "encoder.0"}, prefix="train/", track_every=50)
    lightning.Trainer(callbacks=[callback]).fit(module, batches)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import update_wrapper
from typing import Any

from .._core.optional import require

with require("Lightning", needed_by=__name__, install="xpenalties[lightning]"):
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

from .._core.checks import POSITIVE_INTEGER, named, nearest
from .._pipeline.computation import Computation
from .._pipeline.pipeline import Pipeline
from .._pipeline.settings import Settings
from .._reports.report import PenaltyReport, Report
from ..controllers import Controller
from ._named_inputs import LazyInputs, lookup, select_inputs
from ._torch_capture import Capture, paths_of

__all__ = ["PipelineCallback"]

_OWN = ("batch", "loss", "params")
Observe = Callable[[Report], Any]


class PipelineCallback(Callback):  # type: ignore[misc]
    """Adds a pipeline's penalties to the loss that `training_step` returns, and logs them.

    The pipeline is given a mapping: the outputs of modules by the names in `activities`; ``"params"``, the module's
    parameters by their paths, for `over_tree`; ``"batch"``; ``"loss"``; and what `training_step` returns beside the
    loss, where that is a dict. Its step is `trainer.global_step`.

    Parameters
    ----------
    pipe : Pipeline
    activities : mapping of str to str, or one or more str, optional
        Modules whose outputs are inputs, as `integrations.torch.capture` takes them.
    prefix : str, default ""
        Of the names under which the module logs the report: ``"train/"``.
    track_every : int, optional
        Also log gradient norms, on each so many steps, see `Pipeline.compute`. By default never.
    wrt : str or iterable of str, optional
        The inputs that gradient norms are by; by default ``"params"``. They are of whole gradients, through all that
        leads from these inputs to the loss and to each penalty, so that each takes one more pass back.
    controllers : mapping of str to Controller, or to pairs of Controller and callable, optional
        By the names of penalties, whose weights they set. What they observe is the value of that penalty, or what the
        callable makes of the report; where an optimizer's step has several batches, or processes, the mean. Their
        states are saved in the trainer's checkpoints.

    Raises
    ------
    TypeError, ValueError
        For arguments of a wrong kind or value.

    Notes
    -----
    The penalties count once for each batch, as the loss does: with `accumulate_grad_batches` Lightning divides the
    sum. What `training_step` itself logs is without them. A trainer may have several of these, with pipelines of
    different names and different prefixes: each reports the module's loss and its own penalties. A module that is
    called several times in a step is an input for callables only, as a tuple of its outputs. For manual optimization
    use `integrations.torch.wrap_loss` inside of `training_step`.

    Examples
    --------
    >>> class Module(lightning.LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    ...
    ...     def training_step(self, batch, batch_idx):
    ...         x, y = batch
    ...         return torch.nn.functional.mse_loss(self.net(x), y)
    ...
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), lr=0.1)
    >>> decay = Penalty(trees.over_tree("l2", match="weight"), name="decay", inputs="params", weight=0.01)
    >>> pipe = Pipeline([Penalty("l1", inputs="hidden", weight=0.1), decay])
    >>> callback = PipelineCallback(pipe, activities={"hidden": "net.1"})
    >>> quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    >>> trainer = lightning.Trainer(max_epochs=1, callbacks=[callback], enable_model_summary=False, **quiet)
    >>> batches = torch.utils.data.DataLoader([(torch.ones(4, 2), torch.zeros(4, 1))], batch_size=None)
    >>> trainer.fit(Module(), batches)
    >>> sorted(name for name in trainer.logged_metrics if name.endswith("contribution"))
    ['decay/contribution', 'l1/contribution']
    """

    def __init__(
        self,
        pipe: Pipeline,
        *,
        activities: Mapping[str, str] | str | Iterable[str] | None = None,
        prefix: str = "",
        track_every: int | None = None,
        wrt: str | Iterable[str] | None = None,
        controllers: Mapping[str, Controller | tuple[Controller, Observe]] | None = None,
    ) -> None:
        if not isinstance(pipe, Pipeline):
            raise TypeError(f"PipelineCallback: `pipe` must be a Pipeline, got {type(pipe).__qualname__}. Make one.")
        if track_every is not None:
            track_every = named("PipelineCallback", POSITIVE_INTEGER, "track_every", track_every)
        if wrt is not None and track_every is None:
            raise ValueError(f"PipelineCallback: `wrt` must come with `track_every`, got {wrt!r} without. Pass it.")
        self.pipe = pipe
        self.prefix = prefix
        self.track_every = track_every
        self.wrt = ("params",) if wrt is None else (wrt,) if isinstance(wrt, str) else tuple(wrt)
        self.report: Report | None = None
        one_or_mapping = activities is None or isinstance(activities, (str, Mapping))
        self._names = activities if one_or_mapping else tuple(activities or ())
        self._controllers = {name: _pair(pipe, name, given) for name, given in (controllers or {}).items()}
        self._states = {name: controller.init() for name, (controller, _) in self._controllers.items()}
        self._observed: dict[str, list[Any]] = {name: [] for name in self._controllers}
        self._capture: Capture | None = None
        self._stepped = 0  # the trainer's step at the controllers' latest

    @property
    def state_key(self) -> str:
        """By the pipeline's name: a trainer may have several of these."""
        key: str = self._generate_state_key(pipeline=self.pipe.name)
        return key

    def weights(self) -> dict[str, float]:
        """The weights that the controllers have come to."""
        return {name: float(state["weight"]) for name, state in self._states.items()}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the controllers' weights."""
        return {"weights": self.weights()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse."""
        saved = state_dict["weights"]
        if set(saved) != set(self._controllers):
            raise ValueError(
                f"PipelineCallback: the checkpoint must be of the same controllers, got {', '.join(saved) or 'none'} "
                f"in place of {', '.join(self._controllers) or 'none'}. Pass those that it was saved with."
            )
        self._states = {name: {"weight": weight} for name, weight in saved.items()}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put it on the module, for the time of `fit`."""
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"PipelineCallback: the module must leave optimization to Lightning, got {type(pl_module).__name__} "
                "with automatic_optimization=False. Use xpenalties.integrations.torch.wrap_loss inside of it."
            )
        if self._names is not None:
            paths = paths_of(pl_module, self._names)
            taken = next((name for name in paths if name in _OWN), None)
            if taken is not None:
                raise ValueError(
                    f"PipelineCallback: `activities` must have names other than {', '.join(_OWN)}, got {taken!r}. "
                    "Name it by a mapping."
                )
            self._capture = Capture(pl_module, paths, own=False)
            self._capture.__enter__()
        step = vars(pl_module).get("training_step")
        if not isinstance(step, _TrainingStep):
            step = pl_module.training_step = _TrainingStep(pl_module)
        step.callbacks.append(self)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take it off the module."""
        self._remove(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take it off the module, which outlives a run that has failed."""
        self._remove(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew: a run may be the rest of a former one, and others may have called the module before it."""
        self._stepped = trainer.global_step
        self._observed = {name: [] for name in self._controllers}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Step the controllers, where the optimizer has stepped."""
        if trainer.global_step == self._stepped:
            return
        self._stepped = trainer.global_step
        for name, (controller, _) in self._controllers.items():
            seen, self._observed[name] = self._observed[name], []
            if trainer.world_size > 1:
                self._states[name] = _stepped_together(controller, self._states[name], seen, trainer, pl_module)
            elif seen:  # not where training_step has skipped the batch
                self._states[name] = controller.step(self._states[name], sum(seen[1:], seen[0]) / len(seen))[1]

    def _remove(self, module: LightningModule) -> None:
        step = vars(module).get("training_step")
        if isinstance(step, _TrainingStep) and self in step.callbacks:
            step.callbacks.remove(self)
            if not step.callbacks:
                step.put_back(module)
        if self._capture is not None:
            self._capture.__exit__()
            self._capture = None

    def watch(self, *, begin: bool) -> None:
        """See what the module calls from here on, or no more."""
        if self._capture is not None:
            self._capture.begin() if begin else self._capture.end()

    def penalties(self, module: LightningModule, found: Mapping[str, Any], batch: Any) -> Any:
        """The weighted sum of the penalties, observed and logged, beside what `training_step` has returned."""
        own_inputs = LazyInputs(params=lambda: dict(module.named_parameters()), batch=lambda: batch)
        parts: list[Any] = [found, own_inputs, {} if self._capture is None else self._capture]
        if len(set().union(*parts)) != sum(map(len, parts)):
            raise ValueError(
                "PipelineCallback: what training_step returns must have names that `activities` and the callback do "
                f"not use, got {', '.join(map(repr, found))}. Rename it."
            )
        step = module.trainer.global_step
        weights = {name: state["weight"] for name, state in self._states.items()}
        pipe = self.pipe.with_weights(weights) if weights else self.pipe
        inputs, by = select_inputs(pipe, *parts), None
        if self.track_every is not None and step % self.track_every == 0:
            by = {name: lookup("PipelineCallback: `wrt`", name, *parts) for name in self.wrt}
        penalties, self.report = _computed(pipe, found["loss"], inputs, step, by)
        for name, (_, observe) in self._controllers.items():
            part = self.report.regularizers.get(name)
            if part is not None and part.value is not None:  # not where it is disabled, dropped, or not due
                self._observed[name].append(part.value if observe is None else observe(self.report))
        figures = self.report.flat(self.prefix, floats=False)
        tensors = {name: x if isinstance(x, torch.Tensor) else float(x) for name, x in figures.items()}
        module.log_dict(tensors, on_step=True, on_epoch=False, batch_size=1)
        return penalties


class _TrainingStep:
    """A module's `training_step` with the penalties of one or more callbacks."""

    def __init__(self, module: LightningModule) -> None:
        self.callbacks: list[PipelineCallback] = []
        self._module = module
        self._own = module.training_step
        self._had = "training_step" in vars(module)
        update_wrapper(self, self._own)  # Lightning looks at its signature

    def put_back(self, module: LightningModule) -> None:
        if self._had:
            module.training_step = self._own
        else:
            del module.training_step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._module.trainer.training:  # called by the module's own validation
            return self._own(*args, **kwargs)
        for callback in self.callbacks:
            callback.watch(begin=True)
        try:
            out = self._own(*args, **kwargs)
        finally:
            for callback in self.callbacks:
                callback.watch(begin=False)
        found = dict(out) if isinstance(out, Mapping) else {"loss": out}
        loss = found.get("loss")
        if not isinstance(loss, torch.Tensor):  # the batch is skipped, or Lightning says what is wrong
            return out
        batch = kwargs["batch"] if "batch" in kwargs else args[0]
        total = loss
        for callback in self.callbacks:
            total = total + callback.penalties(self._module, found, batch)
        return {**out, "loss": total} if isinstance(out, Mapping) else total


def _pair(pipe: Pipeline, name: str, given: Any) -> tuple[Controller, Observe | None]:
    controller, observe = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not isinstance(controller, Controller) or not (observe is None or callable(observe)):
        raise TypeError(
            "PipelineCallback: `controllers` must be controllers, or pairs of one and a callable, got "
            f"{type(given).__qualname__} for {name!r}. Call what makes it."
        )
    if name not in pipe:
        raise ValueError(
            f"PipelineCallback: `controllers` must name penalties of the pipeline, got {name!r}."
            + nearest(name, [penalty.name for penalty in pipe])
        )
    return controller, observe


def _stepped_together(
    controller: Controller, state: dict[str, Any], seen: list[Any], trainer: Trainer, module: LightningModule
) -> dict[str, Any]:
    """One state for all processes; one that has seen nothing takes part too, for the others wait for it."""
    dtype = torch.promote_types(module.dtype, torch.float32)
    own = [torch.as_tensor(x, dtype=dtype, device=module.device) for x in (sum(seen), len(seen))]
    total, count = trainer.strategy.reduce(torch.stack(own), reduce_op="sum")
    before = torch.as_tensor(state["weight"], dtype=dtype, device=module.device)
    weight, _ = controller.step({"weight": before}, total / count)
    return {"weight": torch.where(count > 0, weight, before)}


def _computed(
    pipe: Pipeline, loss: Any, inputs: dict[str, Any], step: int, by: dict[str, Any] | None
) -> tuple[Any, Report]:
    """The penalties' sum, and a report that has the loss too, with gradient norms where there is something to go by."""
    value = _figure(loss)
    base = PenaltyReport(value, 1.0, value)
    if not any(penalty.enabled for penalty in pipe):
        return 0.0, Report(value, base, {}, 0.0)
    settings = Settings(track=by is not None)
    computation = Computation(
        pipe.name, pipe.penalties, (inputs,), step, settings, pull=_gradient, pull_inputs=({} if by is None else by,)
    )
    if computation.gradients is not None:
        norm, _ = computation.gradients.add("base_loss", _gradient(loss, computation.gradients.arrays), 1.0)
        base = replace(base, grad_norm=norm, grad_norm_weighted=norm)
    penalties, report = computation.total_and_report()
    return penalties, replace(report, loss_total=value + report.loss_total, base_loss=base)


def _figure(loss: Any) -> Any:
    """A loss as a report has it; Lightning also takes one of shape (1,)."""
    value = loss.detach()
    return value.reshape(()) if value.numel() == 1 else value


def _gradient(value: Any, arrays: list[Any]) -> list[Any]:
    """Through all that leads to the value, whose graph stays; None where nothing does."""
    if not (value.requires_grad and arrays[0].requires_grad):  # all of the arrays do, or none of them
        return [None] * len(arrays)
    return list(torch.autograd.grad(value, arrays, retain_graph=True, allow_unused=True))
