"""``unsup decode RUN z.npz``: the examples of codes."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence

from unsup.cli.options import Parser
from unsup.cli.sample import write_examples
from unsup.cli.show import write
from unsup.core.errors import CapabilityError, InputError


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup decode", description="Examples of codes: raw values (.npy) or a picture (.png).")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("codes", metavar="FILE.npz", help="codes under the name z, as unsup encode writes them")
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help=".npy or .png")
    options = parser.parse(arguments)

    import numpy as np
    import torch

    from unsup.core.model import CanDecode
    from unsup.evaluate.likelihood import CHUNK
    from unsup.train.runs import open_run

    run = open_run(options.run)
    model = run.model
    if not isinstance(model, CanDecode):
        raise CapabilityError(f"{run.config['model']['model']} cannot decode (unsup models tells who can)")
    try:
        with np.load(options.codes, allow_pickle=False) as file:
            z = torch.from_numpy(file["z"]).to(model.dtype)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{options.codes} holds no codes ({error}); expected an .npz file with z, from unsup encode"
        ) from error
    if z.ndim != 2 or z.shape[1] != model.code_size:
        raise InputError(
            f"{options.codes} holds codes of shape {tuple(z.shape)}; this run's are (N, {model.code_size})"
        )
    with torch.no_grad():
        x = torch.cat([model.decode(chunk.to(model.device)).cpu() for chunk in z.split(CHUNK)])
    write_examples(x, model, options.out)
    write(f"{len(x)} examples in {options.out}")
    return 0
