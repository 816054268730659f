"""Priors from their specification and their weights."""

__all__ = ["build_prior", "device_of", "export", "load_prior", "restore", "round_parameters"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from priorflow.components import BadInput, build, load
from priorflow.stages.progress import log


def build_prior(
    spec: Mapping[str, Any], system: Any, base: Path, parent: Path | None = None
) -> Any:
    """A prior with fresh parameters, or one without any, from a `Model` section.

    Args:
        spec: Keys `prior`, `network` (or None), `context`, and `parent`, where it has one: the
            section of the prior that it is built on.
        system: The system in standardised units; a prior without a network gets it.
        base: The folder of the experiment file.
        parent: The weights of the parent; without them it is fresh, too, as is right where the
            weights of the whole are loaded next.
    """
    context: dict[str, Any] = {"shape": tuple(system.shape), "context": spec["context"]}
    if "parent" in spec:
        context["parent"] = build_prior(spec["parent"], system, base)
        if parent is not None:
            restore(context["parent"], parent)
    if spec["network"] is None:
        return build(spec["prior"], base, system=system, **context)
    kind = load(spec["prior"]["class"], base)
    arguments = context
    if hasattr(kind, "network_arguments"):
        settings = {key: value for key, value in spec["prior"].items() if key != "class"}
        arguments = kind.network_arguments(**{**context, **settings})
    network = build(spec["network"], base, **arguments)
    return build(spec["prior"], base, network=network, **context)


def load_prior(
    spec: Mapping[str, Any], system: Any, weights: Path | None, device: torch.device, base: Path
) -> Any:
    """A prior as `build_prior` makes it, with its weights if it has any, on a device."""
    prior = build_prior(spec, system, base)
    if spec["network"] is not None:
        prior = restore(prior, weights)
    return prior.to(device) if isinstance(prior, nn.Module) else prior


def device_of(name: str) -> torch.device:
    """The device that is asked for, or the CPU, with a warning, where there is no such GPU."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        log(f"warning: device {name} is not available, computing on the CPU")
        return torch.device("cpu")
    return torch.device(name)


def round_parameters(prior: nn.Module) -> None:
    """Round the parameters to 16 bits, in place: what `export` writes."""
    for parameter in prior.parameters():
        parameter.data.copy_(parameter.data.to(torch.float16))


def export(prior: nn.Module, path: Path) -> None:
    """Write the parameters in 16 bits, and the buffers as they are."""
    parameters = {name for name, _ in prior.named_parameters()}
    state = {
        name: (value.to(torch.float16) if name in parameters else value).detach().cpu().contiguous()
        for name, value in prior.state_dict().items()
    }
    save_file(state, path)


def restore(prior: nn.Module, path: Path) -> nn.Module:
    """Load the weights that `export` wrote.

    Raises:
        BadInput: The file is not what it should be; names the file and what does not fit.
    """
    try:
        state = load_file(path)
    except Exception as error:
        raise BadInput(f"{path}: not a readable safetensors file: {error}") from None
    expected = prior.state_dict()
    if state.keys() != expected.keys():
        odd = sorted(state.keys() ^ expected.keys())[0]
        raise BadInput(f"{path}: these weights belong to another network: {odd} does not match")
    for name, value in expected.items():
        if value.shape != state[name].shape:
            raise BadInput(
                f"{path}: these weights belong to another network: {name} has shape "
                f"{tuple(state[name].shape)}, not {tuple(value.shape)}"
            )
    prior.load_state_dict({name: value.to(expected[name].dtype) for name, value in state.items()})
    return prior.eval().requires_grad_(False)
