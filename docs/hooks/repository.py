"""Pages of the repository that lie outside docs/, at their own places in the site, with links for both.

README.md of the benchmarks and the study, CONTRIBUTING.md and CHANGELOG.md are pages of the site, too. In
Markdown every link is relative to its file in the repository, as GitHub wants it; here it becomes one to the
page of the site. A link of those pages to a file that the site does not have is left as plain text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s#]+)(#[^()\s]*)?\)")


_FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LIST_AFTER_TEXT = re.compile(r"^((?![-*] |[>|#]|\d+\. |\s).+)\n(?=[-*] |\d+\. )", re.MULTILINE)


def as_python_markdown(text):
    """What GitHub understands and Python-Markdown does not: lists right after text, Markdown folded away."""
    parts = _FENCED.split(text)  # every second one is code
    for i in range(0, len(parts), 2):
        parts[i] = _LIST_AFTER_TEXT.sub(r"\1\n\n", parts[i]).replace("<details>", '<details markdown="1">')
    return "".join(parts)


def mirrored():
    """Paths in the repository, which are those in the site."""
    pages = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("benchmarks/**/*.md")]
    return [path.relative_to(ROOT).as_posix() for path in (*pages, *ROOT.glob("benchmarks/**/*.png"))]


def on_files(files, config):
    for path in mirrored():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(text, page, config, files):
    here = page.file.src_uri
    own = (Path(config.docs_dir) / here).is_file()
    folder = posixpath.dirname(f"docs/{here}" if own else here)

    def replace(found):
        picture, words, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        if "://" in target or not (ROOT / path).is_file():
            return found[0]
        uri = path.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            return words
        link = posixpath.relpath(uri, posixpath.dirname(here) or ".")
        return f"{picture}[{words}]({link}{anchor or ''})"

    return _LINK.sub(replace, text if own else as_python_markdown(text))
