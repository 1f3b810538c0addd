"""Clean evaluation texts out of the files that public packages ship: Wikipedia pages, the Lee news documents.

The texts are prepared on the user's machine and never vendored (Wikipedia's text is CC BY-SA); the rules here are
fixed, so the sha256 of a result names it.
"""

import bz2
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError

__all__ = ["Article", "SimilaritySet", "clean_wikitext", "join_articles", "read_similarity_set", "wikipedia_articles"]

ARTICLE_CHARACTERS = 2_000
LINE_CHARACTERS = 80
TEMPLATE_PASSES = 6

_PAGE = re.compile(r"<page>(.*?)</page>", re.DOTALL)
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_TEXT = re.compile(r"<text[^>]*>(.*?)</text>", re.DOTALL)
_REFERENCE_CLOSED = re.compile(r"<ref[^>]*/>")
_REFERENCE = re.compile(r"<ref[^>]*>.*?</ref>", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}", re.DOTALL)
_TABLE = re.compile(r"\{\|.*?\|\}", re.DOTALL)
_FILE_LINK = re.compile(r"\[\[(?:File|Image|Category|[a-z-]{2,12}):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]")
_PIPED_LINK = re.compile(r"\[\[[^\[\]|]*\|([^\[\]]*)\]\]")
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_URL = re.compile(r"\[(?:https?:)?//\S+ ([^\]]*)\]")
_QUOTES = re.compile(r"'{2,}")
_TAG = re.compile(r"<[^>]+>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """One cleaned article; `text` is its long lines, each a paragraph."""

    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilaritySet:
    """Documents and the similarity people see between them.

    documents : the texts.
    similarity : float64[count, count], 0..1; only the upper triangle is used, the diagonal excluded.
    """

    documents: tuple[str, ...]
    similarity: NDArray[np.float64]


def clean_wikitext(markup: str) -> str:
    """Reduce wiki markup to its long prose lines.

    References, comments, templates, tables, file and category links go; links and quotes leave their text; only lines
    longer than 80 characters that are no list, heading, table or indentation stay.
    """
    text = _COMMENT.sub("", _REFERENCE.sub("", _REFERENCE_CLOSED.sub("", markup)))
    for _ in range(TEMPLATE_PASSES):
        text = _TEMPLATE.sub("", text)
    text = _FILE_LINK.sub("", _TABLE.sub("", text))
    text = _LINK.sub(r"\1", _PIPED_LINK.sub(r"\1", text))
    text = _TAG.sub("", _QUOTES.sub("", _URL.sub(r"\1", text)))
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if len(line) > LINE_CHARACTERS and line[0] not in "*#|!:;{}=")


def wikipedia_articles(dump: bytes) -> tuple[Article, ...]:
    """Read the articles of a bzip2-compressed Wikipedia XML dump.

    Redirects, and articles of 2,000 characters or less after cleaning, are left out.

    Raises
    ------
    ModelError      If the dump is damaged or holds no article.
    """
    try:
        xml = bz2.decompress(dump).decode("utf-8")
    except (OSError, ValueError) as problem:
        raise ModelError(f"the Wikipedia dump cannot be unpacked ({problem}); fetch it again") from problem
    articles = tuple(Article(title=title, text=text) for title, text in _pages(xml) if len(text) > ARTICLE_CHARACTERS)
    if not articles:
        raise ModelError("the Wikipedia dump holds no article; fetch it again")
    return articles


def join_articles(articles: tuple[Article, ...]) -> str:
    """Join articles as title, newline, text, with a blank line between two."""
    return "\n\n".join(f"{article.title}\n{article.text}" for article in articles)


def read_similarity_set(documents: Path, similarity: Path) -> SimilaritySet:
    """Read the Lee set: one document a line (Latin-1), and a square table of which the upper triangle counts.

    Raises
    ------
    ModelError      If a file is missing or the table does not fit the documents.
    """
    try:
        lines = documents.read_text(encoding="latin-1").split("\n")
        table = np.loadtxt(similarity, dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as problem:
        message = f"{documents.parent}: the similarity set cannot be read ({problem}); fetch it again"
        raise ModelError(message) from problem
    texts = tuple(line.strip() for line in lines if line.strip())
    if table.shape != (len(texts), len(texts)):
        raise ModelError(f"{similarity}: {table.shape} similarities for {len(texts)} documents; fetch it again")
    return SimilaritySet(documents=texts, similarity=table)


def _pages(xml: str) -> Iterator[tuple[str, str]]:
    """Yield title and cleaned text of every page that is no redirect."""
    for page in _PAGE.findall(xml):
        title, text = _TITLE.search(page), _TEXT.search(page)
        if title is None or text is None:
            continue
        markup = html.unescape(text.group(1))
        if not markup.lstrip().upper().startswith("#REDIRECT"):
            yield html.unescape(title.group(1)), clean_wikitext(markup)
