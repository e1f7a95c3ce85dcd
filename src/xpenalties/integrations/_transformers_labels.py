"""How labels align with the logits that predict them, and how many of them count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.auto import modeling_auto

__all__ = ["Labels", "items_and_share"]

_UNSHIFTED = {
    *modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values(),
    *modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES.values(),
} - set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


@dataclass(frozen=True)
class Labels:
    """What a `PipelineLoss` knows about labels.

    `shift`: logits predict the next label. `ignore_index`: the label of tokens that do not count. `are_classes`: the
    base loss is their cross-entropy, not the user's own.
    """

    shift: bool
    ignore_index: int
    are_classes: bool

    def aligned(self, logits: Any, labels: Any, shifted: Any) -> tuple[Any, Any]:
        """Return the labels that the logits predict, and a mask of those that count.

        The labels are shifted here, unless the collator made `shifted`.
        """
        if labels is None:
            raise ValueError("PipelineLoss: the batches must have 'labels', got none. Let the collator make them.")
        if self.shift and shifted is not None:
            labels = shifted
        elif self.shift:
            labels = torch.nn.functional.pad(labels, (0, 1), value=self.ignore_index)[..., 1:]
        labels = labels.to(logits.device)
        fits = labels.shape == logits.shape[:-1] and logits.ndim >= 2 + self.shift
        if not fits and (self.are_classes or self.shift):
            remedy = (
                "Pass shift=False if the model does not predict the next token." if self.shift else "Pass a `loss`."
            )
            raise ValueError(
                f"PipelineLoss: labels must have the logits' shape without classes, got {tuple(labels.shape)} and "
                f"{tuple(logits.shape)}, shift={self.shift}. {remedy}"
            )
        if self.are_classes and (labels.is_floating_point() or logits.shape[-1] == 1):
            raise ValueError(
                f"PipelineLoss: labels must be classes for the cross-entropy, got {labels.dtype} for "
                f"{logits.shape[-1]} of them. Pass a `loss`."
            )
        if labels.shape == logits.shape[:-1]:
            return labels, labels != self.ignore_index
        # labels of a custom loss, such as one for each class
        return labels, torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)

    def count(self, labels: Any, shifted: Any, trainer: Any) -> Any:
        """Count the items of a batch like the Trainer, which for many models counts before it shifts the labels."""
        if shifted is not None:
            return torch.sum(shifted != self.ignore_index)
        shifts = self.shift if trainer is None else getattr(trainer, "_loss_shifts_labels", False)
        return torch.sum((labels[..., 1:] if shifts else labels) != self.ignore_index)

    def cross_entropy(self, logits: Any, aligned: Any) -> Any:
        """Return the cross-entropy in float32, summed over all labels."""
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, -2), aligned.flatten(), ignore_index=self.ignore_index, reduction="sum"
        )

    def check(self, model: Any) -> None:
        """Check that a Trainer's model predicts the next label if logits do, and that the Trainer ignores the same."""
        if self.shift:
            _check_predicts_next_token(model)
        if self.ignore_index != -100:
            raise ValueError(
                "PipelineLoss: `ignore_index` must be -100, which the Trainer counts items by, got "
                f"{self.ignore_index}. Let the collator use -100."
            )


def items_and_share(count: Any, aligned: Any, mask: Any, num_items_in_batch: Any) -> tuple[Any, Any]:
    """Return the number of items in the optimizer's step, and this batch's share of them."""
    is_whole_step = num_items_in_batch is None
    items = torch.as_tensor(torch.sum(mask) if is_whole_step else num_items_in_batch, device=mask.device)
    items = items.flatten()[0]  # torch.nn.DataParallel passes one for each device
    items = torch.where(items > 0, items, 1)  # it is 0 if no label of the step counts
    if is_whole_step:
        return items, 1.0
    share = count.to(mask.device) / items
    if aligned.shape != mask.shape:  # the Trainer counts the labels of all classes, penalties count rows
        items = torch.sum(mask) / share
    return items, share


def _check_predicts_next_token(model: Any) -> None:
    model = getattr(model, "_orig_mod", model)  # torch.compile wraps it
    if hasattr(model, "get_base_model"):  # it has adapters
        model = model.get_base_model()
    kinds = {kind.__name__ for kind in type(model).__mro__}
    is_encoder_decoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    if is_encoder_decoder or not kinds.isdisjoint(_UNSHIFTED):
        raise ValueError(
            "PipelineLoss: `shift` must be False for a model that does not predict the next token, got True for "
            f"{type(model).__name__}. Pass shift=False."
        )
