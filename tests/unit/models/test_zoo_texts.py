"""Cleaning of Wikipedia pages and reading of the Lee set, on synthetic files."""

import bz2
import html
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsefab.errors import ModelError
from sparsefab.models.zoo.texts import clean_wikitext, join_articles, read_similarity_set, wikipedia_articles

PROSE = "The quick brown fox jumps over the lazy dog while seventeen owls watch from the old oak tree"


def dump(*pages: tuple[str, str]) -> bytes:
    body = "".join(
        f'<page><title>{html.escape(title)}</title><revision><text xml:space="preserve">{html.escape(text)}</text>'
        "</revision></page>"
        for title, text in pages
    )
    return bz2.compress(f"<mediawiki>{body}</mediawiki>".encode())


@pytest.mark.parametrize(
    ("markup", "plain"),
    [
        ("{0} [[oak]] and [[Quercus robur|oaks]].", "{0} oak and oaks."),
        ("{0}<ref name=a/> on<ref>Smith, ''Owls'', p. 3</ref> end.", "{0} on end."),
        ("{0} '''bold''' and ''italic''.", "{0} bold and italic."),
        ("{0} [http://example.org the site] ends.", "{0} the site ends."),
        ("{0}<!-- hidden\nlines --> ends.", "{0} ends."),
        ("{0} {{{{cite|{{{{inner|{{{{deep}}}}}}}}}}}} ends.", "{0}  ends."),
        ("{0} [[File:Owl.jpg|thumb|An [[owl]] at night]] ends.", "{0}  ends."),
        ("{0} [[Category:Owls]][[de:Eulen]] ends.", "{0}  ends."),
        ("{0} <b>strong</b> ends.", "{0} strong ends."),
    ],
)
def test_markup_leaves_its_text(markup: str, plain: str) -> None:
    assert clean_wikitext(markup.format(PROSE)) == plain.format(PROSE)


@pytest.mark.parametrize("lead", "*#|!:;{}=")
def test_lists_headings_and_tables_are_left_out(lead: str) -> None:
    assert clean_wikitext(f"{PROSE}\n{lead} {PROSE}") == PROSE


def test_short_lines_are_left_out() -> None:
    assert clean_wikitext(f"{'x' * 80}\n{'y' * 81}\nshort") == "y" * 81


def test_tables_over_several_lines_are_left_out() -> None:
    assert clean_wikitext(f"{{| class=wide\n|-\n| cell {PROSE}\n{PROSE}\n|}}\n{PROSE}") == PROSE


@given(st.text(alphabet="ab [](){}|'<>=*\n#:/!-", max_size=400))
def test_every_line_that_stays_is_long_prose(markup: str) -> None:
    for line in filter(None, clean_wikitext(markup).split("\n")):
        assert len(line) > 80
        assert line[0] not in "*#|!:;{}="


def test_articles_skip_redirects_and_short_ones() -> None:
    long_text = "\n".join([PROSE] * 30)
    articles = wikipedia_articles(
        dump(("A & B", long_text), ("Gone", "#REDIRECT [[A]]\n" + long_text), ("low", "#redirect [[A]]"), ("C", PROSE))
    )
    assert [article.title for article in articles] == ["A & B"]
    assert articles[0].text == long_text
    assert join_articles(articles * 2) == f"A & B\n{long_text}\n\nA & B\n{long_text}"


@pytest.mark.parametrize("data", [b"", b"BZh9 not a dump", dump(("t", "words"))[:-20], dump(("t", "words"))])
def test_a_damaged_or_empty_dump_is_named(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"Wikipedia dump.*fetch it again"):
        wikipedia_articles(data)


def test_similarities_are_read_with_their_documents(tmp_path: Path) -> None:
    documents, table = tmp_path / "documents.txt", tmp_path / "similarities.txt"
    documents.write_bytes("costs £3\nsecond\nthird".encode("latin-1"))
    table.write_text("1\t0.5\t0.25\n0\t1\t0.75\n0\t0\t1\n")
    pairs = read_similarity_set(documents, table)
    assert pairs.documents == ("costs £3", "second", "third")
    np.testing.assert_array_equal(pairs.similarity[np.triu_indices(3, 1)], [0.5, 0.25, 0.75])


def test_similarities_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    documents, table = tmp_path / "documents.txt", tmp_path / "similarities.txt"
    documents.write_text("one\ntwo\n")
    table.write_text("1 0.5 0.2\n0 1 0.3\n0 0 1\n")
    with pytest.raises(ModelError, match="for 2 documents"):
        read_similarity_set(documents, table)
    table.write_text("1 x\n0 1\n")
    with pytest.raises(ModelError, match="cannot be read"):
        read_similarity_set(documents, table)
