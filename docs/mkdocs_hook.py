"""A hook of mkdocs: the site has the repository's pages, at their paths in it.

Links between pages are the same everywhere then: on GitHub, in an editor, and on the site.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Pages, and what they show or link to.
CONTENT = ("*.md", "docs/*.md", "docs/assets/*", "benchmarks/*", "LICENSE", "NOTICE", "licenses/*")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs/, whose paths begin below it, by those of the repository."""
    kept = [file for file in files if file.src_dir != config.docs_dir]
    paths = sorted(path for pattern in CONTENT for path in ROOT.glob(pattern))
    for path in [*paths, ROOT / "tools/convert_nanodet.py"]:
        name = path.relative_to(ROOT).as_posix()
        kept.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return Files(kept)
