"""Files of weights: read without running code, and carried to the names that a ViT has here."""

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from selftaught.errors import UserError


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a file of torch or of safetensors; code in it is never run.

    Raises:
        UserError: it cannot be read, or holds more than weights and plain values.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # of many training scripts
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no file of weights, or holds objects whose loading could run code; save "
            "its state dict alone with torch.save(model.state_dict(), ...), or as safetensors"
        ) from error
    except (RuntimeError, EOFError, SafetensorError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), "it is empty")
        raise UserError(f"{path} is no whole file of weights ({reason}); copy it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not weights by name")
    return found
