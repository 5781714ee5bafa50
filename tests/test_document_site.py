"""The pages as a site, and the files and headings that they lead to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.document_checks import PAGES, REPOSITORY, copied, inline, split


def test_every_file_that_a_page_names_is_there() -> None:
    missing = []
    for page in PAGES:
        for line, code in inline(split((REPOSITORY / page).read_text(encoding="utf-8"))[0]):
            named = re.fullmatch(r"((?:mvae|sweeps|pipelines|benchmarks|cluster|tests|docs)/[\w./-]*)(?: .*)?", code)
            if named and not (REPOSITORY / named[1]).exists():
                missing.append(f"{page}:{line}: {named[1]}")
    assert missing == []


def test_every_link_of_the_readme_leads_somewhere() -> None:
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
    """Those that GitHub gives headings."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _site(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does. Not with --quiet, under which warnings would not count."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8", timeout=120)


def test_make_docs_builds_the_site_as_the_tests_do() -> None:
    planned = subprocess.run(["make", "-n", "docs"], cwd=REPOSITORY, capture_output=True, encoding="utf-8", timeout=60)
    assert "-m mkdocs build --strict\n" in planned.stdout


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    built = _site(REPOSITORY, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"concepts.html", "glossary.html", "table4.html"} <= {page.name for page in pages}
    fetched = re.compile(r"<(?:script|link|img)[^>]*(?:src|href)=\"?https?://[^\">\s]*")
    assert [found.group() for page in pages for found in fetched.finditer(page.read_text(encoding="utf-8"))] == []
    page = (tmp_path / "site" / "experiments" / "weak_supervision.html").read_text(encoding="utf-8")
    assert re.search(r"<td[^>]*>0\.\d+ ±0\.\d+</td>", page), "a filled table is a table on the site"


def test_a_dead_link_fails_and_so_does_a_page_that_no_menu_leads_to(tmp_path: Path) -> None:
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
