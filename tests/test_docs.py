"""The documents: every formula renders, every section that code cites exists, every link leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECKER = ROOT / "docs" / "check_math.cjs"
CODE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1[^\n]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
CITATION = re.compile(
    r"\b(derivation(?:_\w+)?)(?:\.md)?,\s+sections?\s+(\d+(?:(?:,\s+|\s+and\s+|\s+to\s+)\d+)*)", re.IGNORECASE
)


def documents() -> list[Path]:
    found = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
        *(ROOT / "kernels").glob("*.md"),
        *ROOT.glob("runs/*/*.md"),
    ]
    return sorted(found)


def check_math(*files: Path) -> subprocess.CompletedProcess[str]:
    """Runs the formula checker, or skips the test and says what is missing."""
    node = shutil.which("node")
    if node is None:
        pytest.skip(
            "node is not installed: formulas are not checked (install Node.js, then: npm install --no-save katex)"
        )
    if not (ROOT / "node_modules" / "katex" / "package.json").is_file():
        pytest.skip("katex is not installed: formulas are not checked (in the checkout: npm install --no-save katex)")
    command = [node, str(CHECKER), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)


def test_every_formula_renders():
    files = [path for path in documents() if path.parent in (ROOT, ROOT / "docs")]
    result = check_math(*files)
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(result.stdout.split()[-4]) > 200  # the derivation alone has more: the checker has not passed them over


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (r"broken: $\frac{1}{$.", "KaTeX parse error"),
        (r"unknown: $\nosuchcommand x$.", "KaTeX parse error"),
        (r"against strict mode: $é$.", "LaTeX-incompatible"),
        ("half: $x_t without an end", "without its partner"),
        ("text to Markdown: $ x $ is no formula", "blank inside"),
    ],
)
def test_the_checker_catches_a_broken_formula(tmp_path, line, message):
    page = tmp_path / "page.md"
    page.write_text(
        f"# Page\n\nGood: $x_t$, a price of \\$5, and `$\\code` in code.\n\n```\n$\\frac{{$\n```\n\n{line}\n",
        encoding="utf-8",
    )
    result = check_math(page)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{page}:9: " in result.stdout and message in result.stdout
    assert result.stdout.endswith("2 formulas, 1 bad\n")


def test_the_checker_refuses_a_page_without_formulas(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("`$x$` is code, and \\$5 a price.\n", encoding="utf-8")
    result = check_math(page)
    assert (result.returncode, result.stdout) == (1, "0 formulas, 0 bad\n"), result.stderr


def cited_sections(text: str, page: str = "derivation") -> set[int]:
    """Sections of a page that a source file cites, as in "docs/derivation.md, section 3" or "Derivation, sections 5 to
    7, 9 and 10"."""
    cited = [sections for name, sections in CITATION.findall(text) if name.lower() == page]
    return {int(number) for sections in cited for number in re.findall(r"\d+", sections)}


@pytest.mark.parametrize("page, last", [("derivation", 15), ("derivation_gaussian", 14)])
def test_cited_sections_exist(page, last):
    headings = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    numbers = [int(n) for n in re.findall(r"^## (\d+) \S", headings, re.MULTILINE)]
    assert numbers == list(range(1, last + 1))
    files = [
        path
        for folder in ("bdiff_np", "kernels")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in (".py", ".cu", ".cuh")
    ]
    citations = {path: cited_sections(path.read_text(encoding="utf-8"), page) for path in files}
    wrong = {
        str(path.relative_to(ROOT)): sorted(cited - set(numbers))
        for path, cited in citations.items()
        if cited - set(numbers)
    }
    assert not wrong, f"sections that docs/{page}.md lacks: {wrong}"
    assert any(citations.values())


def test_citations_are_found():
    text = "docs/derivation.md, section 3. Derivation,\n    sections 5 to 7, 9 and 12; derivation_gaussian, section 6"
    assert cited_sections(text) == {3, 5, 7, 9, 12} and cited_sections(text, "derivation_gaussian") == {6}


def anchors(page: Path) -> set[str]:
    """The names that headings of a page get on code hosts: lower case, punctuation dropped, blanks to hyphens."""
    headings = re.findall(
        r"^#+ +(.+?) *$", re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8")), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page, pictures included, that lead to no file or to no heading."""
    broken = []
    for link in re.findall(r"\]\(<?([^)\s>]+)", CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    return broken


def test_links_lead_somewhere():
    wrong = {str(page.relative_to(ROOT)): links for page in documents() if (links := broken_links(page))}
    assert not wrong


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    links = "[a](page.md#a-page) [b](https://example.org) [c](no.md) [d](#none) ![e](no.png) `[f](code.md)`"
    page.write_text(f"# A page\n{links}\n", encoding="utf-8")
    assert broken_links(page) == ["no.md", "#none", "no.png"]


NAMED = re.compile(r"\b(?:bdiff_np|kernels|tests|benchmarks|docs|runs)/[\w./*-]*(?:::\w+)?")


def unknown_names(text: str) -> list[str]:
    """Files, folders, patterns of files and tests that a text names and that are not there."""
    text = re.sub(r"\S*[<{][^>}\n]*[>}]\S*", "", text)  # names with a part left open
    names = [name.rstrip(".") for name in NAMED.findall(text)]
    return [name for name in names if not is_there(*name.partition("::")[::2])]


def is_there(file: str, test: str) -> bool:
    found = [*ROOT.glob(file)] if "*" in file else [ROOT / file]
    if not found or not found[0].exists():
        return False
    return not test or f"def {test}(" in found[0].read_text(encoding="utf-8")


def test_files_and_tests_that_are_named_exist():
    """In pages, and in the comments and docstrings of the code."""
    pages = [page for page in documents() if page.parent.name in ("docs", "kernels", ROOT.name)]
    code = [path for folder in ("bdiff_np", "kernels") for path in (ROOT / folder).rglob("*.*")]
    files = [*pages, *(path for path in code if path.suffix in (".py", ".cu", ".cuh"))]
    examples = ("runs/", "benchmarks/gpu_logs", "bdiff_np/kernels")  # of folders that users make
    wrong = {
        str(path.relative_to(ROOT)): names
        for path in files
        if (names := [n for n in unknown_names(path.read_text(encoding="utf-8")) if not n.startswith(examples)])
    }
    assert not wrong


def test_a_name_that_leads_nowhere_is_found():
    text = (
        "`kernels/*_cupy.py`, `kernels/*/*_cupy.py` and tests/test_docs.py::test_nothing, tests/test_docs.py::is_there."
    )
    assert unknown_names(text) == ["kernels/*_cupy.py", "tests/test_docs.py::test_nothing"]
