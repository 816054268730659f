"""What all methods that propagate an ensemble share."""

__all__ = ["ensemble_size"]


def ensemble_size(ensemble: int | None, members: int) -> int:
    """How many members are propagated: `ensemble`, or as many as are asked for.

    Raises:
        ValueError: They are fewer than `members`, or than the two that a covariance needs.
    """
    size = members if ensemble is None else ensemble
    if size < max(2, members):
        raise ValueError(f"ensemble: value {size}, allowed: at least {max(2, members)}")
    return size
