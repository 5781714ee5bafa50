"""The documents as a site, and the targets of their links."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.document_checks import PAGES, REPOSITORY, copied, inline, split


def test_every_file_named_on_a_page_exists() -> None:
    missing = []
    for page in PAGES:
        for line, code in inline(split((REPOSITORY / page).read_text(encoding="utf-8"))[0]):
            named = re.fullmatch(r"((?:mvae|sweeps|pipelines|benchmarks|cluster|tests|docs)/[\w./-]*)(?: .*)?", code)
            if named and not (REPOSITORY / named[1]).exists():
                missing.append(f"{page}:{line}: {named[1]}")
    assert missing == []


def test_every_link_of_the_readme_has_a_target() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = REPOSITORY / path if path else REPOSITORY / "README.md"
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


def _anchors(text: str) -> set[str]:
    """Anchors that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _site(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site like `make docs`, but without --quiet, which would hide warnings."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8", timeout=120)


def test_make_docs_builds_the_site_as_the_tests_do() -> None:
    planned = subprocess.run(["make", "-n", "docs"], cwd=REPOSITORY, capture_output=True, encoding="utf-8", timeout=60)
    assert "-m mkdocs build --strict\n" in planned.stdout


def test_the_site_builds_without_warnings_and_fetches_nothing(tmp_path: Path) -> None:
    built = _site(REPOSITORY, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"concepts.html", "glossary.html", "table4.html"} <= {page.name for page in pages}
    fetched = re.compile(r"<(?:script|link|img)[^>]*(?:src|href)=\"?https?://[^\">\s]*")
    assert [found.group() for page in pages for found in fetched.finditer(page.read_text(encoding="utf-8"))] == []
    page = (tmp_path / "site" / "experiments" / "weak_supervision.html").read_text(encoding="utf-8")
    assert re.search(r"<td[^>]*>0\.\d+ ±0\.\d+</td>", page), "a filled table must be a table on the site"


def test_a_dead_link_or_a_page_missing_from_the_menu_fails_the_build(tmp_path: Path) -> None:
    checkout = copied(tmp_path / "checkout")
    shutil.copy(REPOSITORY / "mkdocs.yml", checkout)
    broken = ["nowhere.md", "glossary.md#no-such-heading", "pictures/none.png", "/absolute.md"]
    page = checkout / "docs" / "concepts.md"
    page.write_text(page.read_text(encoding="utf-8") + "".join(f"\n[x]({link})\n" for link in broken), encoding="utf-8")
    (checkout / "docs" / "orphan.md").write_text("# Nobody finds this\n", encoding="utf-8")
    built = _site(checkout, tmp_path / "site")
    assert built.returncode != 0
    for link in [*broken[:1], "no-such-heading", *broken[2:], "orphan.md"]:
        assert link in built.stderr
