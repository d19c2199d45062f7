#!/usr/bin/env python3
"""Makes a book of pages that can be read as they are, too.

As a preprocessor of mdBook it puts a page of the project in the place of such a line of a chapter:

    See [METRICS.md](../../../METRICS.md). <!-- all of it -->

Links, which lead from file to file, are made to lead to the chapter that has what they mean. What no chapter has
is named by its path in the repository. `book.py check FOLDER` says which links of a book that was built lead
nowhere.
"""

import html.parser
import json
import os
import pathlib
import re
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Where links to these lead in the book.
INSTEAD = {"README.md": "introduction.md"}
WHOLE = re.compile(r"^See \[[^\]]*\]\((?P<file>[\w./-]+)\)\. <!-- all of it -->$", re.M)
# What mdBook itself puts in.
INCLUDE = re.compile(r"^\{\{#include (?P<file>[\w./-]+)\}\}$", re.M)
HEADING = re.compile(r"^(#{1,6}) ")
LINK = r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)"
# Code, in which nothing is a link; the words of a link may be code.
LINK_OR_CODE = re.compile(LINK + r"|^```.*?^```[ ]*$|`[^`\n]*`", re.M | re.S)


# ---- Markdown -------------------------------------------------------------------------

def lines_with_headings(text):
    """Each line with its level, if it is a heading, and 0 otherwise."""
    in_code = False
    for line in text.splitlines():
        in_code ^= line.lstrip().startswith("```")
        heading = None if in_code else HEADING.match(line)
        yield line, len(heading[1]) if heading else 0


def below(text, level):
    """A page without its title, as a part of a chapter below a heading of this level."""
    lines = []
    for line, depth in lines_with_headings(text):
        if depth != 1:
            lines.append("#" * (depth + level - 1) + line[depth:] if depth else line)
    return "\n".join(lines).strip()


# ---- links ----------------------------------------------------------------------------

def places_of(chapters):
    """Which chapter has which of the project's files."""
    places = dict(INSTEAD)
    for chapter, text in chapters:
        places[file_of(chapter)] = chapter
        for kind in (WHOLE, INCLUDE):
            for found in kind.finditer(text):
                places[meant(found["file"], file_of(chapter))] = chapter
    return places


def file_of(chapter):
    """Its path from the repository's root."""
    return "docs/src/" + chapter


def meant(path, file):
    """What a path in `file` leads to, from the repository's root."""
    return os.path.normpath(os.path.join(os.path.dirname(file), path)) if path else file


def relinked(text, file, chapter, places):
    """A text of `file`, which stands in `chapter`, with links that lead to chapters."""
    def leading(link):
        image, words, target = link.groups()
        if target is None or re.match(r"\w+:", target):
            return link[0]
        path, _, anchor = target.partition("#")
        place = meant(path, file)
        found = places.get(place)
        if not found and image and place.startswith("docs/src/"):
            found = place[len("docs/src/"):]
        if found:
            way = os.path.relpath(found, os.path.dirname(chapter) or ".")
            return "%s[%s](%s%s)" % (image, words, way, "#" + anchor if anchor else "")
        if not os.path.exists(ROOT / place):
            raise SystemExit("book: %s links to %s, which is not there" % (file, target))
        if image or words.strip("`/") in (place, os.path.basename(place)):
            return words if image else "`%s`" % place
        return "%s (`%s`)" % (words, place)

    return LINK_OR_CODE.sub(leading, text)


def expanded(text, chapter, places):
    """A chapter with the pages that it stands for."""
    parts, end = [], 0
    for found in WHOLE.finditer(text):
        file = meant(found["file"], file_of(chapter))
        page = relinked((ROOT / file).read_text(), file, chapter, places)
        above = [depth for _, depth in lines_with_headings(text[:found.start()]) if depth]
        parts.append(relinked(text[end:found.start()], file_of(chapter), chapter, places))
        # Below a heading it needs no title of its own.
        parts.append(below(page, above[-1]) if above else page)
        end = found.end()
    parts.append(relinked(text[end:], file_of(chapter), chapter, places))
    return "".join(parts)


# ---- what mdBook calls ----------------------------------------------------------------

def chapters_of(items):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            yield chapter
            yield from chapters_of(chapter["sub_items"])


def preprocess():
    _, book = json.load(sys.stdin)
    items = book.get("items", book.get("sections"))
    chapters = [chapter for chapter in chapters_of(items) if chapter["path"]]
    places = places_of((chapter["path"], chapter["content"]) for chapter in chapters)
    for chapter in chapters:
        chapter["content"] = expanded(chapter["content"], chapter["path"], places)
    json.dump(book, sys.stdout)


# ---- what was built -------------------------------------------------------------------

class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def check(folder):
    root = pathlib.Path(folder).resolve()
    pages = {file: Page(file.read_text()) for file in root.rglob("*.html")}
    faults = []
    for file, page in pages.items():
        # It is for any address, with links from the root.
        if file.name in ("404.html", "print.html", "toc.html"):
            continue
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc:
                continue
            path = urllib.parse.unquote(url.path)
            target = (file.parent / path).resolve() if path else file
            missing = not target.is_file()
            if missing or url.fragment and target in pages and url.fragment not in pages[target].ids:
                faults.append("%s: %s" % (file.relative_to(root), link))
    for fault in sorted(set(faults)):
        print("book: leads nowhere: " + fault, file=sys.stderr)
    if faults or not pages:
        raise SystemExit(1)
    print("book: %d pages, every link leads somewhere" % len(pages))


def main():
    command = sys.argv[1:2]
    if command == ["supports"]:
        return
    if command == ["check"]:
        check(sys.argv[2])
    else:
        preprocess()


if __name__ == "__main__":
    main()
