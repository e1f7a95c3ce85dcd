"""Penalties in Lightning's loop: a callback that adds a pipeline to a module's loss. The module needs no change.

For example::

    callback = PipelineCallback(pipeline, activities={"hidden": "encoder.0"}, prefix="train/", track_every=50)
    lightning.Trainer(callbacks=[callback]).fit(module, batches)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import update_wrapper
from typing import Any

from .._core.optional import require
from .._core.shown import shown

with require("Lightning", needed_by=__name__, install="xpenalties[lightning]"):
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

from .._core.checks import POSITIVE_INTEGER, check_argument
from .._pipeline.checked_pipeline import check_pipeline
from .._pipeline.pipeline import Pipeline
from .._pipeline.regularized_loss import RegularizedLoss
from .._pipeline.settings import Settings
from .._reports.report import Report
from ..controllers import Controller
from ._lightning_controllers import Controllers, Observe
from ._named_inputs import LazyInputs, check_inputs, select_inputs
from ._torch_capture import Capture, paths_of
from ._torch_tracking import add_named, named_parameters, recorded

__all__ = ["PipelineCallback"]

_RESERVED = ("batch", "loss", "params")


class PipelineCallback(Callback):  # type: ignore[misc]
    """Adds a pipeline's penalties to the loss that `training_step` returns, and logs them.

    The pipeline gets a mapping:

    - the outputs of modules, by the names in `activities`
    - ``"params"``, the module's parameters by path, for `over_tree`
    - ``"batch"`` and ``"loss"``
    - if `training_step` returns a dict, its other items

    The step is `trainer.global_step`.

    Parameters
    ----------
    pipe : Pipeline
    activities : mapping of str to str, or one or more str, optional
        Modules whose outputs are inputs of the pipeline, as for `integrations.torch.capture`.
    prefix : str, default ""
        Prefix of the names in the module's log, such as ``"train/"``.
    track_every : int, optional
        Also log gradient norms, on every `track_every`-th step, see `Pipeline.compute`. By default never.
    wrt : str, tensor, module, or iterable of them, optional
        Compute gradient norms with respect to these: inputs by name, tensors, or a module's parameters. By default
        ``"params"``. Gradients go through the whole model, so each penalty takes one more backward pass.
    controllers : mapping of str to Controller, or to pairs of Controller and callable, optional
        Controllers of penalties' weights, by the penalty's name. A controller observes the penalty's value, or the
        result of the callable, which is called with the report. If an optimizer's step has several batches or
        processes, it observes the mean. The trainer's checkpoints include the controllers' states.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value, or a built-in penalty does not name its inputs.

    Notes
    -----
    The penalties are added to the loss of each batch. With `accumulate_grad_batches`, Lightning divides the sum. Values
    that `training_step` itself logs do not include penalties. A trainer may have several of these callbacks, if their
    prefixes and the names of their pipelines differ. Each reports the module's loss and its own penalties. If a module
    is called several times in a step, its input is a tuple of outputs, which only callables can use. For manual
    optimization, use `integrations.torch.wrap_loss` inside `training_step`.

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
    >>> decay = Penalty("l2", tree={"match": "weight"}, name="decay", inputs="params", weight=0.01)
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
        wrt: Any = None,
        controllers: Mapping[str, Controller | tuple[Controller, Observe]] | None = None,
    ) -> None:
        check_pipeline("PipelineCallback", "pipe", pipe)
        check_inputs("PipelineCallback", pipe, example="loss")
        if track_every is not None:
            track_every = check_argument("PipelineCallback", POSITIVE_INTEGER, "track_every", track_every)
        if wrt is not None and track_every is None:
            raise ValueError(
                f"PipelineCallback: `wrt` must come with `track_every`, got {shown(wrt)} without. Pass it."
            )
        self.pipe = pipe
        self.prefix = prefix
        self.track_every = track_every
        self.wrt = ("params",) if wrt is None else recorded("PipelineCallback", wrt).items
        self.report: Report | None = None
        one_or_mapping = activities is None or isinstance(activities, (str, Mapping))
        self._names = activities if one_or_mapping else tuple(activities or ())
        self._controllers = Controllers(pipe, controllers or {})
        self._capture: Capture | None = None

    @property
    def state_key(self) -> str:
        """Key of the state in checkpoints. It has the pipeline's name, because a trainer may have several callbacks."""
        key: str = self._generate_state_key(pipeline=self.pipe.name)
        return key

    def weights(self) -> dict[str, float]:
        """Return the current weights of the controllers."""
        return self._controllers.weights()

    def state_dict(self) -> dict[str, Any]:
        """Return the controllers' weights, for a checkpoint."""
        return {"weights": self.weights()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the controllers' weights."""
        self._controllers.load(state_dict["weights"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wrap the module's `training_step` and capture its activities while `fit` runs."""
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                f"PipelineCallback: the module must leave optimization to Lightning, got {type(pl_module).__name__} "
                "with automatic_optimization=False. Call xpenalties.integrations.torch.wrap_loss inside it."
            )
        if self._names is not None:
            paths = paths_of(pl_module, self._names)
            reserved = next((name for name in paths if name in _RESERVED), None)
            if reserved is not None:
                raise ValueError(
                    f"PipelineCallback: `activities` must have names other than {', '.join(_RESERVED)}, got "
                    f"{reserved!r}. Pass a mapping with another name."
                )
            self._capture = Capture(pl_module, paths, own=False)
            self._capture.__enter__()
        step = vars(pl_module).get("training_step")
        if not isinstance(step, _TrainingStep):
            step = pl_module.training_step = _TrainingStep(pl_module)
        step.callbacks.append(self)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the module."""
        self._remove(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the module after a failed run."""
        self._remove(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier observations: training may resume a run, or the module may have been called."""
        self._controllers.start(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Step the controllers if the optimizer has stepped."""
        self._controllers.step(trainer, pl_module)

    def _remove(self, module: LightningModule) -> None:
        step = vars(module).get("training_step")
        if isinstance(step, _TrainingStep) and self in step.callbacks:
            step.callbacks.remove(self)
            if not step.callbacks:
                step.restore(module)
        if self._capture is not None:
            self._capture.__exit__()
            self._capture = None

    def watch(self, *, begin: bool) -> None:
        """Start or stop capturing outputs of modules."""
        if self._capture is not None:
            self._capture.begin() if begin else self._capture.end()

    def penalties(self, module: LightningModule, found: Mapping[str, Any], batch: Any) -> Any:
        """Return the weighted sum of the penalties, given the outputs of `training_step`. Log and observe values."""
        lazy = LazyInputs(params=lambda: named_parameters(module), batch=lambda: batch)
        sources: list[Any] = [found, lazy, {} if self._capture is None else self._capture]
        if len(set().union(*sources)) != sum(map(len, sources)):
            raise ValueError(
                "PipelineCallback: the items that training_step returns must have names that `activities` and the "
                f"callback do not use, got {', '.join(map(repr, found))}. Rename one."
            )
        step = module.trainer.global_step
        weights = self._controllers.current()
        pipe = self.pipe.with_weights(weights) if weights else self.pipe
        inputs = select_inputs(pipe, *sources)
        settings = Settings()
        if self.track_every is not None and step % self.track_every == 0:
            wrt = recorded("PipelineCallback", self.wrt, getattr(module.trainer.precision_plugin, "scaler", None))
            add_named("PipelineCallback", inputs, wrt, *sources)
            settings = Settings(track=True, wrt=wrt)
        loss = RegularizedLoss(lambda _: _scalar(found["loss"]), pipe)
        computation = loss._computation((inputs,), step, settings)
        _, self.report = computation.total_and_report()
        self._controllers.observe(self.report)
        numbers = self.report.flat(self.prefix, floats=False)
        metrics = {name: x if isinstance(x, torch.Tensor) else float(x) for name, x in numbers.items()}
        module.log_dict(metrics, on_step=True, on_epoch=False, batch_size=1)
        return 0.0 if computation.regularizer_total is None else computation.regularizer_total


class _TrainingStep:
    """A module's `training_step`, with the penalties of one or more callbacks."""

    def __init__(self, module: LightningModule) -> None:
        self.callbacks: list[PipelineCallback] = []
        self._module = module
        self._original = module.training_step
        self._is_instance_attribute = "training_step" in vars(module)
        update_wrapper(self, self._original)  # Lightning inspects its signature

    def restore(self, module: LightningModule) -> None:
        if self._is_instance_attribute:
            module.training_step = self._original
        else:
            del module.training_step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._module.trainer.training:  # a call in the module's validation
            return self._original(*args, **kwargs)
        for callback in self.callbacks:
            callback.watch(begin=True)
        try:
            result = self._original(*args, **kwargs)
        finally:
            for callback in self.callbacks:
                callback.watch(begin=False)
        outputs = dict(result) if isinstance(result, Mapping) else {"loss": result}
        loss = outputs.get("loss")
        if not isinstance(loss, torch.Tensor):  # None skips the batch; Lightning refuses anything else
            return result
        batch = kwargs["batch"] if "batch" in kwargs else args[0]
        total = loss
        for callback in self.callbacks:
            total = total + callback.penalties(self._module, outputs, batch)
        return {**result, "loss": total} if isinstance(result, Mapping) else total


def _scalar(loss: Any) -> Any:
    """Make a loss 0-d: Lightning also allows shape (1,)."""
    return loss.reshape(()) if loss.numel() == 1 else loss
