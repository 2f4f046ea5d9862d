"""Texts are in plain technical English: phrases that users stumbled over do not come back."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


# (what is not written, what is written in its place)
PHRASES = (
    (r"\b(?:go|goes|going|gone) on (?:with|from|where|as|exactly|bit|though)\b", "resume, continue"),
    (r"\bcannot go on\b", "cannot continue, cannot be resumed"),
    (r"\bstays? as (?:it|they) (?:is|was|are|were)\b", "is not changed; nothing to do"),
    (r"\bleave (?:it |them |the \w+ )?out\b", "remove"),
    (r"\bcontradicts? itself\b", "does not match"),
    (r"\bstands? (?:in|only)\b(?! for)", "is in"),
    (r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|larger\b|smaller\b|higher\b)\w+", "is not a"),
    (r"\bholds? (?:no|a|words|other|something|examples|values|samples|images)\b", "has, contains, is not a"),
    (r"\bmay (?:not |it )?be written\b(?! (?:in|by|as|only))", "no write permission for"),
    (r"\btaken as (?:the|a) \w+", "used as, treated as"),
    (r"\bgives? no \w+", "has no, cannot"),
    (r"\bjudge (?:it|its|them|samples)\b", "evaluate"),
    (r"\btell(?:s|ing)? (?:no|who)\b|\btell(?:s|ing)? (?:\w+ ){0,2}apart\b", "is not a classifier, lists, distinguish"),
    (r"\b(?:there are|there is)(?=[;.,]| free)|\bof memory there (?:are|is)\b", "available"),
    (r"\bdealt\b|\bdeal(?:s|ing)? out\b", "assigned, shuffled independently"),
    (r"\banew\b|\bafresh\b", "again, new"),
    (r"\bunless (?:said|told|you say)\b|\bsays? otherwise\b", "by default"),
    (r"\bh[eo]lds? (?:\w+ )?against\b", "compared with"),
    (r"\bdear(?:er|est)?\b", "expensive"),
    (r"\bthe odd one\b", "outliers"),
    (r"\bnot anecdotes\b", "tested properties"),
    (r"\bprocesses (?:are |as )?one\b(?! )", "n processes give the same result as one"),
    (r"\b(?:to|how to|the) mend\b|\bmend (?:it|the|or|them)\b", "fix"),
    (r"\bsay (?:where|on which|which)\b", "pass ... with"),
    (r"\bat work in\b", "running in"),
    (r"\b(?:no|every)body\b", "no one, all processes"),
    (r"\bbegun\b", "started"),
    (r"\b(?:a|one) (?:number|row|line|seed|file|flag|term|step|result) an? \w+(?=[.,:;)]|$)", "... per ..."),
    (r"\bhand(?:s|ed|ing)? (?:it |them )?out\b", "provides, returns"),
    (r"\b(?:is|are|be|was|were) said\b|\bsaid so\b|\bsays so\b|\bsay so\b", "reported"),
    (r"\b(?:in|at) hand\b", "current, local"),
    (r"\bfor want of\b|\bbut for\b", "because ... was missing, except"),
    (r"\bcommonest\b", "most frequent"),
    (r"\bodd because\b", "most unusual values"),
    (r"\bshow this (?:and|help and)\b", "show this help message and exit"),
    (r"\bwithout a word\b|\bfrom then on\b|\bfor good\b|\bwhatever\b", "without an error, permanently, for any"),
)
COMPILED = tuple((re.compile(pattern, re.I), better) for pattern, better in PHRASES)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file with their lines: of Python, docstrings, comments and strings; else paragraphs."""
    content = path.read_text()
    if path.suffix != ".py":
        content = content.partition("| not this |")[0]  # the table of such phrases
        outside = re.sub(r"```.*?```|`[^`\n]+`", lambda m: re.sub(r"[^\n]", " ", m.group()), content, flags=re.S)
        line = 1
        for paragraph in re.split(r"(\n\s*\n)", outside):
            yield line, paragraph
            line += paragraph.count("\n")
        return
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def files() -> list[str]:
    found = [*ROOT.glob("src/unsup/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    names = sorted(str(path.relative_to(ROOT)) for path in found)
    return names


def found_in(text: str) -> list[str]:
    flat = " ".join(text.split())
    return [f"{m.group()!r}: {better}" for pattern, better in COMPILED for m in pattern.finditer(flat)]


@pytest.mark.parametrize("name", files())
def test_no_phrase_that_users_stumbled_over(name: str) -> None:
    assert [f"line {line}: {what}" for line, text in texts(ROOT / name) for what in found_in(text)] == []


# Words that code may use for itself, but not the texts of users: command line, pages, docs.
FOR_USERS = (
    (re.compile(r"(?<=\w )contest(?:ant)?s?\b(?!\.json)|\bcontest(?:ant)?s?(?= \w)", re.I), "comparison, model"),
    (re.compile(r"(?<=\w )floors?\b(?! (?:is|that|=)|`)|\*floor\*|\bfloors? of\b", re.I), "baseline"),
)


def shown_to_users(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file without docstrings and comments."""
    if path.suffix != ".py":
        yield from texts(path)
        return
    tree = ast.parse(path.read_text())
    described = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in described:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in files()
        if name.startswith(tuple(f"src/unsup/{layer}/" for layer in ("cli", "contest", "evaluate", "report", "train")))
        or name in ("docs/compare.md", "docs/samples.md", "docs/reliability.md", "README.md")
    ],
)
def test_users_read_of_models_comparisons_and_baselines(name: str) -> None:
    flat = [(line, " ".join(text.split())) for line, text in shown_to_users(ROOT / name)]
    found = [
        f"line {n}: {m.group()!r}: {better}" for n, t in flat for word, better in FOR_USERS for m in word.finditer(t)
    ]
    assert found == []
