"""The engine's errors as messages, and words that are not ours as they are."""

import re
from collections.abc import Generator
from contextlib import contextmanager

import streamlit as st

# what Markdown and its extensions here read as markup, addresses and signs among it
MARKS = r"[\\*_\[\]<>#!|~$&]|:(?=//|\w)"


@contextmanager
def engine_errors() -> Generator[None]:
    """Show what a user can mend as a message and stop the page; let a bug stay loud."""
    try:
        yield
    except Exception as error:
        # the engine is imported late, so that the first page paints before torch is loaded
        from engine.errors import EngineError

        if not isinstance(error, EngineError):
            raise
        show_error(error)
        st.stop()


def show_error(error: Exception) -> None:
    """Show one of the engine's errors: what is missing as information, the rest as an error."""
    from engine.errors import MissingDataError

    text = str(error)
    text = plain(text[:1].upper() + text[1:])
    if isinstance(error, MissingDataError):
        st.info(text, icon=":material/info:")
    else:
        st.error(text, icon=":material/error:")


def plain(text: str) -> str:
    """Write a text so that Markdown shows it as it is; only what stands in backticks is code.

    Files and folders name themselves, and a name may hold an address or a picture's.

    Args:
        text: One line.

    Returns:
        Markdown that draws no link, picture, formula or markup of the text's own.
    """
    pieces = text.split("`")
    whole = len(pieces) % 2 == 0 or "``" in text or "\n" in text
    if whole:  # backticks that do not pair: none of them begins code
        return re.sub(MARKS, r"\\\g<0>", " ".join(text.split()).replace("`", "\u2019"))
    return "`".join(
        piece if place % 2 else re.sub(MARKS, r"\\\g<0>", piece)
        for place, piece in enumerate(pieces)
    )
