"""What every page must keep to, found by parsing its HTML."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from urllib.parse import unquote

VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr")
)
URLS = ("href", "src", "action")
NEEDS_LABEL = ("input", "select", "textarea")
REFERENCES = ("for", "aria-labelledby", "aria-describedby")

Attributes = dict[str, str]


def find_problems(page: str, root: str = "") -> list[str]:
    """Return what is wrong with a page whose URLs have to begin with `root`."""
    reader = _Reader(root)
    reader.feed(page)
    reader.close()
    return reader.finish()


class _Reader(HTMLParser):
    def __init__(self, root: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = root
        self.problems: list[str] = []
        self.open: list[tuple[str, Attributes, list[str]]] = []
        self.ids: Counter[str] = Counter()
        self.labeled: set[str] = set()
        self.fields: list[tuple[str, Attributes]] = []
        self.references: list[str] = []
        self.count: Counter[str] = Counter()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look_at(tag, {name: value or "" for name, value in attrs})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if len(attributes) < len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        self._look_at(tag, attributes)
        if tag not in VOID:
            self.open.append((tag, attributes, []))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1][0] != tag:
            inside = " ".join(each for each, _, _ in self.open)
            self.problems.append(f"</{tag}> closes nothing: {inside}")
            return
        _, attributes, texts = self.open.pop()
        text = "".join(texts).strip()
        if self.open:
            self.open[-1][2].append(text)
        is_named = text or attributes.get("aria-label")
        if tag in ("a", "button", "th", "h1", "h2", "h3", "label", "summary") and not is_named:
            self.problems.append(f"<{tag} {attributes}> has no text")
        if "data-state" in attributes and not text.strip("".join(_GLYPHS)):
            self.problems.append(f"<{tag} {attributes}> says its state without a word: {text!r}")
        if tag in ("script", "style") and text:
            self.problems.append(f"<{tag}> in the page: {text[:80]!r}")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1][2].append(data)

    def _look_at(self, tag: str, attributes: Attributes) -> None:
        self.count[tag] += not any(each == "svg" for each, _, _ in self.open)
        if "id" in attributes:
            self.ids[attributes["id"]] += 1
        for name, value in attributes.items():
            if name == "style" or name.startswith("on"):
                self.problems.append(f"<{tag}> has {name}={value!r}, which no page may have")
            if name in URLS:
                self._check_url(tag, value)
            if name in REFERENCES:
                self.references += value.split()
        if tag == "style":
            self.problems.append("<style>, which no page may have")
        if tag == "label":
            self.labeled.add(attributes.get("for", ""))
        if tag in NEEDS_LABEL and attributes.get("type") != "hidden":
            self.fields.append((tag, attributes))
        if tag == "th" and "scope" not in attributes:
            self.problems.append("<th> without a scope")
        if tag == "svg":
            is_named = attributes.get("role") and attributes.get("aria-label")
            if attributes.get("aria-hidden") != "true" and not is_named:
                self.problems.append("<svg> is neither hidden nor an image with a name")

    def _check_url(self, tag: str, url: str) -> None:
        is_inside = url.startswith(("#", "?", "data:,")) or url == self.root
        if not is_inside and not url.startswith(f"{self.root}/"):
            self.problems.append(f"<{tag}> leads to {url!r}")
        if unquote(url).lower().strip().startswith("javascript:"):
            self.problems.append(f"<{tag}> leads to {url!r}")

    def finish(self) -> list[str]:
        found = list(self.problems)
        found += [f"<{tag}> is never closed" for tag, _, _ in self.open]
        found += [
            f"the id {each} is there {number} times"
            for each, number in self.ids.items()
            if number > 1
        ]
        found += [f"nothing has the id {each}" for each in self.references if each not in self.ids]
        for tag, attributes in self.fields:
            if attributes.get("id", "") not in self.labeled and "aria-label" not in attributes:
                found.append(f"<{tag} {attributes}> has no label")
        for tag in ("h1", "main", "title"):
            if self.count[tag] != 1:
                found.append(f"there are {self.count[tag]} <{tag}>")
        return found


_GLYPHS = "●◎○◷◌▶✓✗!■⊘–◔∅?0123456789, "
