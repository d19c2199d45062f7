#!/usr/bin/env python3
"""The book takes from README and its neighbours what they say already, instead of saying it again.

As a preprocessor of mdBook it replaces such lines:

    {{#project METRICS.md}}              all of a file, from the repository's root
    {{#project README.md#guarantees}}    one section of it, without its heading
    {{#instead-of README.md#messages}}   nothing; links to that section lead to this chapter

Links in them are made to lead to the chapter that has what they mean. What no chapter has is named by its
path in the repository. `book.py check FOLDER` says which links of a book that was built lead nowhere.
"""

import html.parser
import json
import os
import pathlib
import re
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "docs/src"

PART = r"(?P<file>[\w./-]+?)(?:#(?P<anchor>[\w-]+))?"
DIRECTIVE = re.compile(r"^\{\{#project %s\}\}$" % PART, re.M)
INSTEAD = re.compile(r"^\{\{#instead-of %s\}\}\n" % PART, re.M)
# What mdBook itself puts in.
INCLUDE = re.compile(r"^\{\{#include (?P<file>[\w./-]+)\}\}$", re.M)
HEADING = re.compile(r"^(#{1,6}) (.+?)\s*$")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
# Code, in which nothing is a link.
CODE = re.compile(r"(^```.*?^```[ ]*$|`[^`\n]*`)", re.M | re.S)


# ---- Markdown -------------------------------------------------------------------------

def anchor_of(heading):
    """The id that a heading gets, here as on most pages that show Markdown."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", words))


def lines_with_headings(text):
    """Each line with its level and anchor, if it is a heading."""
    in_code = False
    for line in text.splitlines():
        in_code ^= line.lstrip().startswith("```")
        heading = None if in_code else HEADING.match(line)
        yield line, len(heading[1]) if heading else 0, anchor_of(heading[2]) if heading else None


def section(text, anchor):
    """The level of a heading, and what stands below it up to the next one as high."""
    level, lines = 0, []
    for line, depth, name in lines_with_headings(text):
        if level and depth and depth <= level:
            break
        if level:
            lines.append(line)
        elif name == anchor:
            level = depth
    if not level:
        raise SystemExit("book: there is no section '%s'" % anchor)
    return level, "\n".join(lines)


def with_levels(text, shift):
    """The headings `shift` levels higher."""
    lines = []
    for line, depth, _ in lines_with_headings(text):
        lines.append("#" * max(1, depth - shift) + line[depth:] if depth else line)
    return "\n".join(lines).strip()


# ---- links ----------------------------------------------------------------------------

class Places:
    """Which chapter has what of the project's files."""

    def __init__(self, chapters):
        self.whole, self.sections = {}, {}
        for path, text in chapters:
            for found in DIRECTIVE.finditer(text):
                self.add(path, found["file"], found["anchor"])
            for found in INSTEAD.finditer(text):
                self.sections[found["file"], found["anchor"] or ""] = path, ""
            for found in INCLUDE.finditer(text):
                file = (CHAPTERS / path).parent / found["file"]
                self.whole[os.path.relpath(os.path.normpath(file), ROOT)] = path

    def add(self, chapter, file, anchor):
        if anchor is None:
            self.whole.setdefault(file, chapter)
            return
        _, below = section((ROOT / file).read_text(), anchor)
        self.sections.setdefault((file, anchor), (chapter, ""))
        for _, _, name in lines_with_headings(below):
            if name:
                self.sections.setdefault((file, name), (chapter, "#" + name))

    def find(self, file, anchor):
        """The chapter and the anchor in it; None if no chapter has it."""
        if file in self.whole:
            return self.whole[file], "#" + anchor if anchor else ""
        return self.sections.get((file, anchor))


def relinked(text, file, chapter, places):
    """A text of `file`, which stands in `chapter`, with links that lead there."""
    def replace(link):
        image, words, target = link.groups()
        if re.match(r"\w+:", target):
            return link[0]
        path, _, anchor = target.partition("#")
        meant = os.path.normpath(os.path.join(os.path.dirname(file), path)) if path else file
        found = places.find(meant, anchor)
        if found:
            way = os.path.relpath(found[0], os.path.dirname(chapter) or ".")
            return "%s[%s](%s%s)" % (image, words, way, found[1])
        if meant.startswith("docs/src/"):
            way = os.path.relpath(meant[len("docs/src/"):], os.path.dirname(chapter) or ".")
            return "%s[%s](%s%s)" % (image, words, way, "#" + anchor if anchor else "")
        if not os.path.exists(ROOT / meant):
            raise SystemExit("book: %s links to %s, which is not there" % (file, target))
        if image or words.strip("`/") in (meant, os.path.basename(meant)):
            return words if image else "`%s`" % meant
        return "%s (`%s`)" % (words, meant)

    parts = CODE.split(text)
    # Every other part is code.
    parts[::2] = [LINK.sub(replace, part) for part in parts[::2]]
    return "".join(parts)


def expanded(text, chapter, places):
    def replace(found):
        whole = (ROOT / found["file"]).read_text()
        above = [depth for _, depth, _ in lines_with_headings(text[:found.start()]) if depth]
        anchor = found["anchor"]
        if anchor is None and above:
            # The chapter has a heading of its own in the place of the title.
            anchor = next(name for _, depth, name in lines_with_headings(whole) if depth == 1)
        if anchor is None:
            return relinked(whole, found["file"], chapter, places)
        level, below = section(whole, anchor)
        below = with_levels(below, level - (above[-1] if above else 1))
        return relinked(below, found["file"], chapter, places)

    return INSTEAD.sub("", DIRECTIVE.sub(replace, text))


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
    places = Places((chapter["path"], chapter["content"]) for chapter in chapters)
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
