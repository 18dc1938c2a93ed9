"""Writes the addresses of the repository into what PyPI and the napari hub show; the workflow of a release calls it.

    python tools/release_links.py https://github.com/OWNER/NAME v0.2.0

Only the code platform knows where the repository lies, so setup.cfg names no address of it, and the links and
pictures of README.md are relative. On PyPI and the hub they would lead nowhere. The changes are for the build, not for
a commit.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!#|\w+:)[^)\s]+)\)")
_PICTURE = re.compile(r'<img src="(?P<target>[^"]+)"[^>]*?alt="(?P<text>[^"]*)"\s*/?>', re.DOTALL)
_URLS = "project_urls =\n"


def with_addresses(text: str, home: str, tag: str) -> str:
    """Markdown whose relative links and pictures lead to the repository at a tag.

    A picture in HTML becomes one in Markdown, which the hub needs.
    """

    def lead(link: re.Match[str]) -> str:
        kind = "raw" if link["picture"] else "blob"
        return f"{link['picture']}[{link['text']}]({home}/{kind}/{tag}/{link['target']})"

    return _LINK.sub(lead, _PICTURE.sub(lambda image: f"![{image['text']}]({image['target']})", text))


def with_urls(setup: str, home: str, tag: str) -> str:
    """setup.cfg with the names of addresses that the hub looks for."""
    urls = {
        "Homepage": home,
        "Source Code": home,
        "Bug Tracker": f"{home}/issues",
        "Documentation": f"{home}/blob/{tag}/docs/index.md",
        "Changelog": f"{home}/blob/{tag}/CHANGELOG.md",
    }
    lines = "".join(f"    {name} = {url}\n" for name, url in urls.items())
    if _URLS not in setup:
        msg = f"setup.cfg: there is no line {_URLS.strip()!r}."
        raise ValueError(msg)
    return setup.replace(_URLS, _URLS + lines)


def main() -> None:
    """Rewrite README.md and setup.cfg in the working folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", help="address of the repository")
    parser.add_argument("tag", help="tag of the release")
    given = parser.parse_args()
    for name, change in (("README.md", with_addresses), ("setup.cfg", with_urls)):
        path = Path(name)
        path.write_text(change(path.read_text("utf-8"), given.home, given.tag), "utf-8")


if __name__ == "__main__":
    main()
