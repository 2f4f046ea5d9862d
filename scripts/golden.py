"""Record what every law case computes, so that new code can be held to it: ``python scripts/golden.py OUT.json.gz``.

``tests/golden/test_golden.py`` imports this file by its path, records the same cases with the code under test and
compares. The functions under "Two code bases" are all that knows how the two differ; a new difference goes there.

The parameters that a case is recorded at do not hang on how it is initialised: they are drawn by name, with the spread
that the initial ones had when the goldens were recorded. So a changed initialisation shows as just that.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import inspect
import json
import re
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

import unsup
from unsup.core.model import Colours
from unsup.core.registry import names
from unsup.testing.cases import law_cases
from unsup.testing.subject import play

try:
    from unsup.core.random import keyed_generator
except ImportError:
    from unsup.core.model import keyed_generator

Record = dict[str, Any]
Rename = Callable[[str], str]
Scales = Mapping[str, Sequence[float]]

SEED = 0
ROWS = 16  # of the batch that is scored
NOISE = 0.1  # as `unsup.testing.subject.perturb`
SETTLING = 3  # losses or passes of a generic model, as `Subject.generic`
EM_PASSES = 10
FIT_STEPS = 5
ADAM_EPS = 1e-6  # so that gradients which are nothing but rounding move nothing
HELD_OUT = 16  # rows of the case's data that a fit validates on
IN_FULL = 16  # tensors of so many entries are kept whole; of larger ones two sums
DIGITS = 13


# --- two code bases ---------------------------------------------------------------------------------------------------


def describe(case: Any) -> str:
    """What a case is, in words that neither its position nor the way of naming classes changes.

    Its options are those given over the preset, in order of their names; of conditions only that there is one is said.
    """
    event = case.event
    supports = [_support(s) for s in event.columns]
    words = supports[:1] if len(set(supports)) == 1 else supports
    options = {k: v for k, v in sorted(case.options.items()) if k not in ("classes", "given")}
    told = "".join(f", {k}={v!r}" for k, v in options.items()) + (", conditional" if is_conditional(case) else "")
    gaps = ", some missing" if event.missing else ""
    return f"{case.model} on {'×'.join(map(str, event.shape))} {' + '.join(words)}{gaps}{told}"


def _support(support: Any) -> str:
    if support.kind in ("binary", "real"):
        return support.kind
    return f"{support.kind}({support.levels}{f', low={support.low}' if support.low else ''})"


def is_conditional(case: Any) -> bool:
    return bool(case.options.get("classes")) or case.options.get("given") is not None


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A batch, or any nest of mappings and records in it, with ``function`` applied to its tensors."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {k: mapped(v, function) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type) and type(value).__name__ in ("Batch", "Split", "Stream"):
        return replace(value, **{f.name: mapped(getattr(value, f.name), function) for f in fields(value) if f.init})
    return value


def given_of(batch: Any) -> Tensor | None:
    """What a conditional model is told of each example."""
    given = getattr(batch, "given", None)
    return getattr(batch, "label", None) if given is None else given


def second_domain(batch: Any) -> Tensor:
    return batch.domain_b if hasattr(batch, "domain_b") else batch["domain_b"].x


def prepare(model: Any, batch: Any, generator: Generator) -> None:
    if "x" in inspect.signature(model.prepare).parameters:
        model.prepare(batch.x, batch.label, generator=generator)
    else:
        model.prepare(batch, generator=generator)


def log_prob_given(model: Any, x: Tensor, given: Tensor) -> Tensor:
    return model.log_prob_given(x, given) if hasattr(model, "log_prob_given") else model.log_prob(x, given=given)


def sample_given(model: Any, given: Tensor, **knobs: Any) -> Tensor:
    if hasattr(model, "sample_given"):
        return model.sample_given(given, **knobs)
    return model.sample(len(given), given=given, **knobs)


def owned(objective: Any) -> list[nn.Parameter]:
    """The parameters that a player moves."""
    found: list[nn.Parameter] = []
    for part in objective.parameters:
        found += part.parameters() if isinstance(part, nn.Module) else [part]
    return found


def condition_of_code(s: Subject) -> Record:
    """The condition of each example of ``s.x``, which a conditional model with codes needs on every call."""
    given = given_of(s.few)
    return {"given": given} if is_conditional(s.case) and hasattr(s.generic(), "encode") else {}


def learns_by_counting(model: Any) -> bool:
    return hasattr(model, "maximize") and model.passes > 0


def fit_data(case: Any) -> Any:
    """The case's examples as data: the last `HELD_OUT` are for validation and test."""
    from unsup.data.source import Data, Split

    batch = case.data(SEED)
    known = {f.name for f in fields(Split)}

    def split(rows: slice) -> Any:
        part = mapped(batch, lambda t: t[rows])
        found = {"x": part.x, "label": getattr(part, "label", None), "given": getattr(part, "given", None)}
        if translates(case):
            # One example again and again: the order in which a second domain is dealt is the data's business.
            second = second_domain(part)[:1].expand(part.x.shape).contiguous()
            found |= {"domain_b": second} | ({"streams": {"domain_b": Split(second)}} if "streams" in known else {})
        x = found.pop("x")
        return Split(x, **{k: v for k, v in found.items() if k in known})

    aside = split(slice(-HELD_OUT, None))
    extra = {"given": case.options.get("given")} if "given" in {f.name for f in fields(Data)} else {}
    return Data(None, case.event, split(slice(0, -HELD_OUT)), aside, aside, **extra)


def translates(case: Any) -> bool:
    return case.model == "cyclegan"


# --- numbers ----------------------------------------------------------------------------------------------------------


def noise(*words: object) -> Generator:
    """The generator of one purpose, the same whatever else is recorded."""
    return keyed_generator(SEED, *(zlib.crc32(str(w).encode()) for w in words))


def number(x: float, digits: int = DIGITS) -> float:
    return float(f"{float(x):.{digits}g}")


def weights(n: int) -> Tensor:
    """Fixed numbers in [−1, 1): multiples of the golden ratio, modulo 1."""
    return 2 * (torch.arange(1, n + 1, dtype=torch.float64) * 0.6180339887498949).frac() - 1


def summary(x: Any) -> Any:
    """A tensor as its type, shape and values, or their sum, weighted sum and sum of sizes where there are many."""
    if x is None or isinstance(x, str | bool | int):
        return x
    if not isinstance(x, Tensor):
        return number(x)
    found: Record = {"type": str(x.dtype).removeprefix("torch."), "shape": list(x.shape)}
    flat = x.detach().reshape(-1).double()
    if len(flat) <= IN_FULL:
        return found | {"values": [number(v) for v in flat.tolist()]}
    finite = flat.isfinite()
    if not bool(finite.all()):
        found["infinite"] = int((~finite).sum())
        flat = flat.masked_fill(~finite, 0.0)
    sums = {"sum": number(flat.sum()), "dot": number(flat @ weights(len(flat)))}
    return found | sums | {"size": number(flat.abs().sum(), 4)}


def mean(term: Tensor) -> float:
    """A loss term is a scalar or one number an example."""
    return number(term.detach().double().mean())


# --- models -----------------------------------------------------------------------------------------------------------


def scales_of(model: nn.Module, rename: Rename) -> dict[str, list[float]]:
    """Where each parameter's initial values lie: ``[value, 0]`` of a constant one, else ``[0, root mean square]``."""
    found = {}
    for name, p in model.named_parameters():
        flat = p.detach().double().flatten()
        constant = bool((flat == flat[0]).all())
        value = number(flat[0] if constant else flat.square().mean().sqrt(), 3)
        found[rename(name)] = [value, 0.0] if constant else [0.0, value]
    return found


def vector_of(name: str) -> str:
    """NAME of ``NAME[i]``, which is entry i of a recorded vector that is now single parameters."""
    return re.sub(r"\[\d+\]$", "", name)


def named_noise(purpose: str, name: str, like: Tensor) -> Tensor:
    """Noise of one parameter by its recorded name."""
    entry = re.search(r"\[(\d+)\]$", name)
    generator = noise(purpose, vector_of(name))
    if entry is None:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)
    return torch.randn(int(entry[1]) + 1, generator=generator, dtype=like.dtype)[-1]  # the start of a longer one


def vectors(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """The same by name, entries ``NAME[i]`` put together again."""
    found: dict[str, list[Tensor | None]] = {}
    for name, value in tensors.items():
        found.setdefault(vector_of(name), []).append(value)
    return {k: torch.stack(v) if f"{k}[0]" in tensors else v[0] for k, v in found.items()}


@torch.no_grad()
def draw_parameters(model: nn.Module, rename: Rename, scales: Scales) -> None:
    """Initial values drawn by name; a parameter without a scale, which is new, stays as it was built."""
    for name, p in model.named_parameters():
        own = rename(name)
        if vector_of(own) in scales:
            centre, spread = scales[vector_of(own)]
            p.copy_(centre + spread * named_noise("start", own, p))
    for name, buffer in model.named_buffers():
        own = rename(name)
        if re.fullmatch(r"(.*\.)?u", own):  # the vector of a spectral norm starts at random too
            drawn = torch.randn(buffer.shape, generator=noise("start", own), dtype=buffer.dtype)
            buffer.copy_(drawn / drawn.norm())


@torch.no_grad()
def add_noise(model: nn.Module, rename: Rename, scales: Scales) -> None:
    for name, p in model.named_parameters():
        own = rename(name)
        if vector_of(own) in scales:
            p.add_(NOISE * named_noise("noise", own, p))


@dataclass(frozen=True)
class Subject:
    """A case and the models that its quantities are of, in float64.

    Attributes:
        rename: from the code's names of parameters and buffers to the recorded ones.
        scales: as `scales_of` gave them when the goldens were recorded.
    """

    case: Any
    rename: Rename
    scales: Scales

    @cached_property
    def _data(self) -> Any:
        return mapped(self.case.data(SEED), lambda t: t.double() if t.is_floating_point() else t)

    @property
    def batch(self) -> Any:
        """A new batch each time: a player may leave something in one for the next player."""
        return mapped(self._data, lambda t: t)

    @property
    def few(self) -> Any:
        return mapped(self._data, lambda t: t[:ROWS])

    @property
    def x(self) -> Tensor:
        return self._data.x[:ROWS]

    def start(self) -> Any:
        """A new model with parameters drawn by name."""
        model = self.case.build(seed=SEED).double().train()
        draw_parameters(model, self.rename, self.scales)
        return model

    def fresh(self) -> Any:
        """The same, prepared on the data."""
        model = self.start()
        with torch.no_grad():
            prepare(model, self.batch, noise("prepare"))
        return model

    @cached_property
    def _generic(self) -> Any:
        model = self.fresh()
        if learns_by_counting(model):
            for _ in range(SETTLING):
                model.maximize(model.statistics(self.batch, generator=noise("statistics")))
            return model.eval()
        add_noise(model, self.rename, self.scales)
        with torch.no_grad():
            for i in range(SETTLING):
                for objective in model.objectives():
                    play(model, objective, self.batch, noise("settle", objective.name, i))
        return model.eval()

    def generic(self) -> Any:
        """A model at generic parameters and statistics, in evaluation mode."""
        return copy.deepcopy(self._generic)

    def state(self, model: nn.Module, *, parameters: bool = True, buffers: bool = True) -> Record:
        """What is saved of a model."""
        learned = {name for name, _ in model.named_parameters()}
        kept = {k: v for k, v in model.state_dict().items() if (parameters if k in learned else buffers)}
        named = vectors({self.rename(name): value for name, value in sorted(kept.items())})
        return {name: summary(value) for name, value in named.items()}


def transient(model: nn.Module, rename: Rename) -> list[str]:
    """Names of the buffers that are not saved."""
    saved = model.state_dict()
    return sorted(rename(name) for name, _ in model.named_buffers(remove_duplicate=False) if name not in saved)


# --- quantities -------------------------------------------------------------------------------------------------------


def initial(s: Subject) -> Record:
    """Parameters under a seed, in the type the library makes them."""
    return s.state(s.case.build(seed=SEED), buffers=False)


def prepared(s: Subject) -> Record:
    """What `prepare` moved."""
    before, after = s.state(s.start()), s.state(s.fresh())
    return {name: value for name, value in after.items() if value != before.get(name)}


def generic(s: Subject) -> Record:
    model = s.generic()
    return s.state(model, parameters=learns_by_counting(model))


def log_prob(s: Subject) -> Record:
    model = s.generic()
    if not hasattr(model, "log_prob"):
        return {}
    found = {}
    if hasattr(model, "estimate_log_partition"):
        partition = model.estimate_log_partition(effort=1, generator=noise("partition"))
        found["log_partition"] = {"value": summary(float(partition[0])), "error": summary(float(partition[1]))}
    for samples in (1, 3):
        found[str(samples)] = summary(model.log_prob(s.x, samples=samples, generator=noise("log_prob", samples)))
    return found


def conditional(s: Subject) -> Record:
    model, given = s.generic(), given_of(s.few)
    if not is_conditional(s.case) or given is None:
        return {}
    found = {
        "log_prob": summary(log_prob_given(model, s.x, given)),
        "sample": summary(sample_given(model, given[:7], generator=noise("sample_given"))),
    }
    if "temperature" in inspect.signature(model.sample).parameters:
        found["cold"] = summary(sample_given(model, given[:7], generator=noise("sample_given"), temperature=0.7))
    return found


def energy(s: Subject) -> Record:
    model = s.generic()
    return {"value": summary(model.energy(s.x))} if hasattr(model, "energy") else {}


def score(s: Subject) -> Record:
    model = s.generic()
    return {"value": summary(model.score(s.x))} if hasattr(model, "score") else {}


def code(s: Subject) -> Record:
    model = s.generic()
    if not hasattr(model, "encode"):
        return {}
    told = condition_of_code(s)
    z = model.encode(s.x, **told)
    return {"encode": summary(z)} | ({"decode": summary(model.decode(z, **told))} if hasattr(model, "decode") else {})


def factors(s: Subject) -> Record:
    model, found = s.generic(), {}
    if hasattr(model, "log_conditionals"):
        found["log_conditionals"] = summary(model.log_conditionals(s.x, generator=noise("log_conditionals")))
    if hasattr(model, "conditionals"):
        last = len(model.orders) - 1
        found |= {"orders": summary(model.orders), "first": summary(model.conditionals(s.x.double()))}
        found["last"] = summary(model.conditionals(s.x.double(), order=last))
    return found


def flow(s: Subject) -> Record:
    model = s.generic()
    if not hasattr(model, "transform"):
        return {}
    discrete = torch.tensor([support.is_discrete for support in s.case.event.columns]).view(s.case.event.shape)
    uniform = torch.rand(s.x.shape, generator=noise("transform"), dtype=torch.float64)
    told = condition_of_code(s)
    z, log_det = model.transform(s.x.double() + uniform * discrete, **told)
    base = torch.randn(z.shape, generator=noise("invert"), dtype=torch.float64)
    found = {"z": summary(z), "log_det": summary(log_det), "base_log_prob": summary(model.base_log_prob(z))}
    return found | {"back": summary(model.invert(z, **told)), "invert": summary(model.invert(base, **told))}


def translate(s: Subject) -> Record:
    model = s.generic()
    if isinstance(model, Colours):
        return {to: summary(model.translate(s.x, to=to)) for to in ("a", "b")}
    if not translates(s.case):
        return {}
    return {
        "b": summary(model.translate(s.x, to="b")),
        "a": summary(model.translate(second_domain(s.few), to="a")),
    }


def learning(s: Subject, *, train: bool) -> Record:
    """Terms and gradients of every player, each from the same state, and the buffers that its loss moved."""
    found = {}
    for i, player in enumerate(s.generic().objectives()):
        model = s.generic().train(train)
        objective = model.objectives()[i]
        terms = play(model, objective, s.few, noise("loss", player.name))
        loss = terms["loss"].mean()
        own: Record = {"terms": {name: mean(term) for name, term in terms.items()}}
        if loss.requires_grad:
            known = {id(p): name for name, p in model.named_parameters()}
            parameters = owned(objective)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            named = zip((s.rename(known[id(p)]) for p in parameters), gradients, strict=True)
            own["gradient"] = {name: _gradient(g) for name, g in vectors(dict(named)).items()}
        found[player.name] = own | {"buffers": s.state(model, parameters=False)}
    return found


def _gradient(g: Tensor | None) -> Record:
    flat = torch.zeros(1, dtype=torch.float64) if g is None else g.reshape(-1).double()
    return {"norm": number(flat.norm()), "dot": number(flat @ weights(len(flat)))}


def loss_train(s: Subject) -> Record:
    return learning(s, train=True)


def loss_eval(s: Subject) -> Record:
    return learning(s, train=False)


def sample(s: Subject) -> Record:
    model = s.generic()
    if not hasattr(model, "sample"):
        return {}
    found = {"plain": summary(model.sample(7, generator=noise("sample")))}
    if "temperature" in inspect.signature(model.sample).parameters:
        found["cold"] = summary(model.sample(7, generator=noise("sample"), temperature=0.7))
    if hasattr(model, "sample_naive"):
        found["naive"] = summary(model.sample_naive(7, generator=noise("sample")))
    return found


def complete(s: Subject) -> Record:
    """The rest of each example, its first half in the model's order known."""
    model = s.generic()
    if not hasattr(model, "complete"):
        return {}
    dims = s.case.event.dims
    position = model.orders[0].argsort().argsort() if hasattr(model, "orders") else torch.arange(dims)
    known = (position < dims // 2).view(1, *s.case.event.shape).expand(s.x.shape)
    return {"drawn": summary(model.complete(s.x, known, generator=noise("complete")))}


def counting(s: Subject) -> Record:
    """All that is saved after passes of EM, or counting, over the data."""
    model = s.fresh()
    if not learns_by_counting(model):
        return {}
    for _ in range(EM_PASSES):
        model.maximize(model.statistics(s.batch, generator=noise("statistics")))
    return s.state(model)


def fit(s: Subject, optimizer: str) -> Record:
    """A short run: terms at every step, parameters after the last one, the likelihood and what is kept of the model."""
    model, last = s.start(), {}
    counts, hook = learns_by_counting(model), model.after_step
    if counts and optimizer != "adam":
        return {}
    # At initial parameters some units lie right on the kink of a ReLU, where rounding decides upon the gradient.
    add_noise(model, s.rename, s.scales)

    def after_step(*args: Any, **kwargs: Any) -> None:
        hook(*args, **kwargs)
        last.update(s.state(model, buffers=False))

    model.after_step = after_step
    settings = {"seed": SEED, "device": "cpu", "progress": "off"}
    if not counts:
        settings |= {
            "steps": FIT_STEPS,
            "batch_size": 16,
            "optimizer": optimizer,
            "eps": ADAM_EPS,
            "precision": "float32",
        }
    fitted = unsup.fit(model, fit_data(s.case), **settings)
    logged = [event for event in fitted.events if any(k.split("/")[-1] == "loss" for k in event)]
    steps = {str(e["step"]): {k: number(v) for k, v in e.items() if k not in ("step", "seconds")} for e in logged}
    kept = vectors({s.rename(name): p.detach().double() for name, p in model.named_parameters()})
    whole = [kept[name].flatten() for name in sorted(kept) if name in s.scales]
    return {
        "terms": steps,
        "parameters": s.state(model) if counts else last,
        "kept": summary(torch.cat(whole)) if whole else None,
        "nats": None if fitted.validation is None else number(fitted.validation.nats),
    }


def fit_sgd(s: Subject) -> Record:
    return fit(s, "sgd")


def fit_adam(s: Subject) -> Record:
    return fit(s, "adam")


QUANTITIES: tuple[Callable[[Subject], Record], ...] = (
    initial,
    prepared,
    generic,
    log_prob,
    conditional,
    energy,
    score,
    code,
    factors,
    flow,
    translate,
    loss_train,
    loss_eval,
    sample,
    complete,
    counting,
    fit_sgd,
    fit_adam,
)


def record(case: Any, rename: Rename = str, golden: Record | None = None) -> Record:
    """Everything about one case.

    Args:
        case: a `unsup.testing.Case`.
        rename: from the code's names of parameters and buffers to the recorded ones.
        golden: what was recorded of it, whose scales the parameters are drawn with; None to record it. With it, only
            what it holds is computed, and what raises is told under ``raised`` in the quantity's place.
    """
    built = case.build(seed=SEED)
    scales = scales_of(built, rename) if golden is None else golden["scales"]
    subject = Subject(case, rename, scales)
    found: Record = {"scales": scales, "transient": transient(built, rename)}
    for quantity in QUANTITIES:
        name = quantity.__name__
        if golden is not None and name not in golden:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(SEED)
            try:
                value = quantity(subject)
            except Exception as error:
                if golden is None:
                    raise
                place = traceback.extract_tb(error.__traceback__)[-1]
                value = {"raised": f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"}
        if value:
            found[name] = value
    return found


def cases() -> Iterator[tuple[int, Any]]:
    for name in names():
        yield from enumerate(law_cases(name))


def machine() -> Record:
    """What the last digits depend on."""
    return {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}


def read(path: Path) -> Record:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return json.load(file)


def write(content: Record, path: Path) -> None:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    # Without a time in its header the same goldens are the same file.
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _commit() -> str:
    folder = Path(unsup.__file__).parent
    found = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the file to write, .json or .json.gz")
    parser.add_argument("--only", default="", help="a regular expression that the descriptions of cases must match")
    chosen = parser.parse_args()
    found: dict[str, Record] = {}
    for index, case in cases():
        told = describe(case)
        if not re.search(chosen.only, told):
            continue
        if told in found:
            sys.exit(f"two cases are both {told!r}; describe() must tell them apart")
        found[told] = {"model": case.model, "index": index} | record(case)
        sys.stdout.write(f"{told}\n")
    write({"commit": _commit(), "machine": machine(), "cases": found}, chosen.out)
    sys.stdout.write(f"{len(found)} cases, {chosen.out.stat().st_size:,} bytes in {chosen.out}\n")


if __name__ == "__main__":
    main()
