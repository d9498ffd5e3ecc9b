"""The documentation: its code runs, it names everything there is, and its site stands on its own."""

import importlib.util
import inspect
import re
import subprocess
import sys
from dataclasses import fields
from types import SimpleNamespace

import pytest
from markdown_code import LANGUAGES, ROOT, blocks, ran, unresolved

import qixai_fast as qf
from qixai_fast.auditing import checks

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md"])
RUNNING = [path for path in PAGES if any(block.language in ("python", "sh") for block in blocks(path))]


def named(path):
    return path.relative_to(ROOT).as_posix()


READ = {named(path): path.read_text(encoding="utf-8") for path in PAGES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All pages, each in a process of its own that has imported what the others have."""
    return ran(RUNNING, tmp_path_factory.mktemp("pages"))


# Code


@pytest.mark.parametrize("page", RUNNING, ids=named)
def test_code_runs(runs, page):
    good, printed = runs[page]
    assert good, printed


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_code_is_left_out(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}"
        if not block.language:
            assert not re.search(r"^(import |from |qixai-fast |qf\.)", block.text, re.M), (
                f"{page}:{block.line}"
            )


@pytest.mark.parametrize("page", [page for page in PAGES if "```py\n" in READ[named(page)]], ids=named)
def test_code_for_a_gpu_names_what_there_is(page):
    """It runs in test_code_runs where there is a GPU; elsewhere it is compiled, its names are looked up."""
    for block in blocks(page):
        if block.language == "py":
            compile(block.text, str(page), "exec")
            assert unresolved(block.text, qf) == []


def test_unknown_names_are_found():
    text = "from qixai_fast.kernels import nothing\nqf.pcaa(X)\nqf.pca(X, 3, devise='cuda')\n"
    assert sorted(unresolved(text, qf)) == ["nothing", "pca(devise=)", "pcaa"]


def test_the_added_kernel_s_own_tests_find_a_wrong_one(tmp_path):
    """The page runs as it is; with squares that are none its comparison with the reference fails."""
    text = READ["docs/kernels.md"]
    right = "squares[j] += value * value"
    assert right in text
    (tmp_path / "page.md").write_text(text.replace(right, "squares[j] += value"), encoding="utf-8")
    code = f"""
import sys
from pathlib import Path
sys.path[:0] = [".", {str(ROOT / "tests")!r}]
from markdown_code import run_page
run_page(Path("page.md"))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode
    assert "Not equal to tolerance" in done.stderr


# Completeness


def test_every_public_name_has_its_reference():
    found = re.findall(r"^::: qixai_fast\.(\w+)$", "\n".join(READ.values()), re.M)
    assert sorted(set(found) & set(qf.__all__)) == sorted(qf.__all__)


def test_every_command_and_option_is_told():
    from typer.main import get_command

    from qixai_fast.cli import app

    text = READ["docs/command-line.md"]
    for name, command in get_command(app).commands.items():
        assert f"qixai-fast {name}" in text, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert option in text, f"{name} {option}"


def test_every_warning_of_a_report_is_told():
    source = inspect.getsource(checks) + inspect.getsource(sys.modules["qixai_fast.auditing.plan"])
    codes = set(re.findall(r'^ +"([a-z]+_[a-z_]+)",$', source, re.M))
    assert "dead_maps" in codes
    assert {code for code in codes if f"`{code}`" not in READ["docs/report.md"]} == set()


@pytest.mark.parametrize(
    ("page", "text", "value"),
    [
        ("docs/report.md", "less than 70 %", lambda: qf.AuditPlan().min_explained_variance == 0.7),
        ("docs/report.md", "fewer than five a map", lambda: checks._SAMPLES_A_MAP == 5),
        ("docs/numbers.md", "256 maps", lambda: qf.AuditPlan().max_maps == 256),
        ("docs/numbers.md", "10,000 samples drawn", lambda: qf.AuditPlan().test_samples == 10_000),
        ("docs/numbers.md", "2,000 for CKA", lambda: qf.AuditPlan().null_samples == 2_000),
        ("docs/numbers.md", "92,681 samples", lambda: "92,681" in qf.rsa.__doc__),
        ("docs/instruments/spectrum.md", "up to 1,024 maps", lambda: "1,024" in qf.pca.__doc__),
        (
            "docs/instruments/quantum.md",
            "5,000 samples or maps",
            lambda: "5,000" in qf.von_neumann_entropy.__doc__,
        ),
    ],
)
def test_limits_are_those_of_the_code(page, text, value):
    assert text in READ[page]
    assert value()


def test_plan_of_the_command_line_page_has_known_fields():
    [plan] = [block.text for block in blocks(DOCS / "command-line.md") if block.language == "toml"]
    assert set(re.findall(r"^(\w+) =", plan, re.M)) <= {field.name for field in fields(qf.AuditPlan)}


# Links, as GitHub follows them


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_of_the_repository(page):
    text = re.sub(r"^```.*?^```", "", READ[named(page)], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!https?:|#)([^()#\s]+)(?:#[^()]*)?\)", text):
        assert (page.parent / target).is_file(), target


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as make docs does it; a warning ends the build."""
    pytest.importorskip(
        "mkdocs", reason="the documentation's tools are not installed: pip install -e '.[docs]'"
    )
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def html(site):
    return {
        path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")
    }


def test_site_has_all_pages(site):
    pages = html(site)
    expected = {named(page).removeprefix("docs/").removesuffix(".md") + ".html" for page in PAGES}
    expected |= {"CHANGELOG.html", "benchmarks/index.html", "benchmarks/study/index.html"}
    assert expected <= set(pages)


def test_site_loads_nothing_from_elsewhere(site):
    """Scripts, styles, pictures and frames are files of the site; links for readers may lead anywhere."""
    loading = re.compile(r'<(?:script|img|iframe|source|video|audio|embed)[^>]*\ssrc="([^"]*)"')
    sheets = re.compile(r'<link[^>]*rel="(?:stylesheet|preload|preconnect|icon)"[^>]*>')
    for name, text in html(site).items():
        found = loading.findall(text) + re.findall(r'href="([^"]*)"', "".join(sheets.findall(text)))
        assert found, name
        for address in found:
            assert not re.match(r"(https?:)?//", address), f"{name}: {address}"
            file = (site / name).parent / address.partition("?")[0]
            assert name == "404.html" or address.startswith("data:") or file.is_file(), f"{name}: {address}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import", path.read_text(encoding="utf-8")), path


def test_formulas_are_drawn_by_the_browser_itself(site):
    """They are MathML: nothing of LaTeX is left on the pages, those of docstrings included."""
    pages = html(site)
    for name in ("spectrum", "entanglement", "orthogonality", "measurement", "quantum"):
        assert pages[f"instruments/{name}.html"].count('<math xmlns="http://www.w3.org/1998/Math/MathML"') > 5
    assert "<math" in pages["reference/linear.html"]
    for name, text in pages.items():
        shown = re.sub(r"<(script|style|code|pre|annotation)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert "arithmatex" not in shown, name
        assert not re.search(r":(func|class|math|meth|mod):|\$\$|\\(frac|sum|lVert|mathrm)", shown), name


@pytest.fixture(scope="module")
def hooks():
    """What the site's build calls, by name."""
    pytest.importorskip("mkdocs", reason="comes with the extra docs")
    found = {}
    for path in (DOCS / "hooks").glob("*.py"):
        spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
        found[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[path.stem])
    return found


@pytest.mark.parametrize("latex", [r"\nosuch{a}", r"\left( a"])
def test_a_formula_that_cannot_be_drawn_ends_the_build(hooks, latex):
    with pytest.raises(ValueError, match="no MathML"):
        hooks["maths"].on_page_content(rf'<span class="arithmatex">\({latex}\)</span>', None, None, None)


def test_links_out_of_docs_lead_to_their_pages(hooks):
    def rewritten(page, text):
        known = {"benchmarks/README.md", "kernels.md", "report.png"}
        files = SimpleNamespace(get_file_from_path=lambda uri: uri if uri in known else None)
        page = SimpleNamespace(file=SimpleNamespace(src_uri=page))
        return hooks["repository"].on_page_markdown(text, page, SimpleNamespace(docs_dir=str(DOCS)), files)

    assert rewritten("instruments/spectrum.md", "[a](../../benchmarks/README.md#x)") == (
        "[a](../benchmarks/README.md#x)"
    )
    assert rewritten("CONTRIBUTING.md", "[a](docs/kernels.md)") == "[a](kernels.md)"
    assert rewritten("index.md", "![a](report.png)") == "![a](report.png)"
    assert rewritten("CONTRIBUTING.md", "[the licence](LICENSE), [a](https://x.org)") == (
        "the licence, [a](https://x.org)"
    )


def test_lists_and_folded_parts_are_read_as_github_reads_them(hooks):
    text = "Said:\n- one\n  more\n- two\n\n```\ncode\n- kept\n```\n<details>\n"
    wanted = 'Said:\n\n- one\n  more\n- two\n\n```\ncode\n- kept\n```\n<details markdown="1">\n'
    assert hooks["repository"].as_python_markdown(text) == wanted


def test_roles_of_docstrings_become_markdown(hooks):
    as_markdown = hooks["docstrings"].as_markdown
    assert as_markdown("See :func:`pca`, :mod:`qixai_fast.krylov`.") == (
        "See [`pca`][qixai_fast.pca], `qixai_fast.krylov`."
    )
    assert as_markdown(":math:`a\nb` and ``c``") == "$a b$ and `c`"
    assert as_markdown("x\n\n.. math:: a +\n          b\n\ny").split() == [
        "x",
        "$$",
        "a",
        "+",
        "b",
        "$$",
        "y",
    ]


def test_names_in_docstrings_lead_to_their_pages(site):
    text = html(site)["reference/information.html"]
    assert '<a class="autorefs autorefs-internal" href="#qixai_fast.mutual_info_ksg"' in re.sub(
        r'(<a class="autorefs autorefs-internal")[^>]*( href=)', r"\1\2", text
    )


# Citing


def test_citation_names_this_version_and_the_paper():
    yaml = pytest.importorskip("yaml", reason="comes with mkdocs")
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert content["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type", "version", "license"} <= set(content)
    known = {"abstract", "keywords", "references", "cff-version"}  # of version 1.2.0 of the format
    assert set(content) <= known | {"message", "title", "authors", "type", "version", "license"}
    assert content["version"] == qf.__version__
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert content["license"] == "BSD-3-Clause"
    [paper] = content["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert "2410.16537" in paper["url"]
