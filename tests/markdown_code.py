"""Code in Markdown: finding it, running a page of it, and checking what cannot run here.

- ``python`` runs, a page in one process, blocks in order, in an empty folder. A block whose first line is
  ``# NAME.py`` is saved as that file instead, for later blocks to import.
- ``sh`` runs, line by line, in the same process: ``qixai-fast ...`` by its own command line. What installs,
  makes or tests things is checked, not run: its targets, extras and files exist.
- ``toml`` is read, and saved where its first line is ``# NAME.toml``.
- ``py`` is code for a GPU. It is compiled, and its names and keywords are looked up in the package; where
  there is a GPU it runs. ``text`` and blocks without a language are output, or commands for a cluster.

``python markdown_code.py OUT PAGE ...`` runs pages, each in a child of one process that has imported all.
"""

import ast
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
import traceback
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = {"python", "sh", "toml", "py", "text", ""}
# They would install, build or test for minutes.
CHECKED_ONLY = {"make", "pip", "python"}
# Commands that other tests spend their seconds on: here their options alone are read.
RUN_ELSEWHERE = {"demo", "warmup", "bench"}
_FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_SAVED = re.compile(r"# ([\w.]+\.(?:py|toml))\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line that the text begins at, from 1."""

    language: str
    text: str
    line: int


def blocks(path):
    text = path.read_text(encoding="utf-8")
    return [
        Block(found[2], textwrap.dedent(found[3]), text.count("\n", 0, found.start(3)) + 1)
        for found in _FENCE.finditer(text)
    ]


def run_page(path):
    """Run a page's code in the current folder, in order."""
    import torch

    names = {"__name__": "__main__"}
    for block in blocks(path):
        saved = _SAVED.match(block.text)
        if saved and block.language in ("python", "toml"):
            Path(saved[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python" or (block.language == "py" and torch.cuda.is_available()):
            # Empty lines in front, so that tracebacks name the line of the page.
            exec(compile("\n" * (block.line - 1) + block.text, str(path), "exec"), names)
        elif block.language == "sh":
            for line in filter(None, block.text.replace("\\\n", "").splitlines()):
                run_line(line.partition("  #")[0])


def run_line(line):
    program, *arguments = shlex.split(line)
    if program in CHECKED_ONLY:
        check_line(program, arguments)
        return
    if program != "qixai-fast":
        raise ValueError(f"nobody knows how to test {line!r}")
    from typer.main import get_command

    from qixai_fast.cli import app

    if arguments[0] in RUN_ELSEWHERE:
        get_command(app).get_command(None, arguments[0]).make_context(arguments[0], arguments[1:])
        return
    print("$", line)
    code = app(arguments, standalone_mode=False)
    assert not code, f"{line}: exit code {code}"


def check_line(program, arguments):
    """What would install, build or test for minutes: everything that it names is there."""
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert arguments, "make: which target?"
        assert set(arguments) <= set(targets), arguments
    elif program == "pip":
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        known = set(re.findall(r"^(\w+) = \[", text.partition("[project.optional-dependencies]")[2], re.M))
        wanted = re.fullmatch(
            r"\.(?:\[([\w,]+)\])?|git\+https://github\.com/gregversteeg/NPEET", arguments[-1]
        )
        assert wanted, arguments
        assert set((wanted[1] or "").split(",")) - {""} <= known, arguments
    elif program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]), arguments
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), arguments


def unresolved(text, module):
    """What a text takes from ``module`` (as ``qf``) that it has not; keywords that its functions lack."""
    missing = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "qf":
            missing += [] if hasattr(module, node.attr) else [node.attr]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("qf."):
            function = getattr(module, node.func.attr, None)
            known = inspect.signature(function).parameters if function else {}
            missing += [f"{node.func.attr}({word.arg}=)" for word in node.keywords if word.arg not in known]
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("qixai_fast"):
            home = importlib.import_module(node.module)
            missing += [alias.name for alias in node.names if not hasattr(home, alias.name)]
    return missing


def ran(pages, out):
    """Run pages in processes of their own; ``{page: (whether it ended well, what it printed)}``."""
    command = [sys.executable, __file__, str(out), *map(str, pages)]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    stems = {page: page.relative_to(ROOT).as_posix().replace("/", "-") for page in pages}
    return {
        page: (not (out / f"{stem}.failed").exists(), (out / f"{stem}.txt").read_text(encoding="utf-8"))
        for page, stem in stems.items()
    }


def main(out, pages):
    """Leave ``PAGE.txt`` with what each page printed, and ``PAGE.failed`` beside it where it ended badly."""
    import sklearn.feature_selection  # noqa: F401
    import torch  # noqa: F401

    import qixai_fast as qf
    import qixai_fast.cli

    for name in qf.__all__:
        getattr(qf, name)
    for page in pages:
        name = page.relative_to(ROOT).as_posix().replace("/", "-")
        child = os.fork()
        if not child:
            code = 1
            try:
                folder = out / name.removesuffix(".md")
                folder.mkdir()
                os.chdir(folder)
                sys.path.insert(0, str(folder))
                stream = os.open(out / f"{name}.txt", os.O_WRONLY | os.O_CREAT, 0o600)
                os.dup2(stream, 1)
                os.dup2(stream, 2)
                run_page(page)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        if os.waitpid(child, 0)[1]:
            (out / f"{name}.failed").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), [Path(page).resolve() for page in sys.argv[2:]])
