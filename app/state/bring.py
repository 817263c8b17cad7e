"""What the Import & export page is asked, and its address."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.state.keys import QUERY_SECTION
from app.state.merge import MergeView, from_query, to_query

BRING_SECTIONS = ("checkpoint", "task", "export")

# of the session
BRING_SECTION = "bring_section"
BRING_ADDRESS = "bring_address"  # the address last written
BRING_TIMES = "bring_times"  # presses so far: each asks anew
BRING_FROM = "bring_from"  # "path" or "upload"
BRING_PATH, BRING_FILES, BRING_ZEROSHOT = "bring_path", "bring_files", "bring_zeroshot"
BRING_ENCODER, BRING_TASK, BRING_MODE = "bring_encoder", "bring_task", "bring_mode"
BRING_LOOK, BRING_IMPORT = "bring_look", "bring_import"  # buttons
BRING_ASKED, BRING_IMPORTED = "bring_asked", "bring_imported"  # what they were pressed for
BRING_DATA, BRING_DATA_LOOK = "bring_data", "bring_data_look"
BRING_DATA_ASKED = "bring_data_asked"
BRING_WORDS = "bring_words_"  # what each field of a task's words is called after
BRING_WORDS_OF = "bring_words_of"  # whose words the fields hold
BRING_ADD, BRING_ADDED = "bring_add", "bring_added"
BRING_DECODE, BRING_DECODED = "bring_decode", "bring_decoded"
BRING_OWN, BRING_FORGET = "bring_own", "bring_forget"
OUT_KIND, OUT_ENCODER, OUT_READING = "out_kind", "out_encoder", "out_reading"
OUT_CONVENTION, OUT_TASKS = "out_convention", "out_tasks"
OUT_ALPHA = "out_alpha_"  # the task's name follows
OUT_METHOD, OUT_OPTIONS = "out_method", "out_options"
OUT_FROM = "out_from"  # the setting of Merge that was last taken over
OUT_TAKE, OUT_ASKED, OUT_FILE = "out_take", "out_asked", "out_file"
OUT_WORK = "out_work"  # what was prepared last: it lies on the disk as long as this is kept


@dataclass(frozen=True)
class BringView:
    """What the page shows: a section, and of the export the setting."""

    section: str = BRING_SECTIONS[0]
    merge: MergeView = field(default_factory=MergeView)


def bring_from_query(query: Mapping[str, str]) -> BringView:
    """Read a view from the address; what is malformed counts as not given.

    Args:
        query: Parameters of the address, written by anyone.

    Returns:
        The view; the first section where none is named.
    """
    section = query.get(QUERY_SECTION)
    return BringView(section if section in BRING_SECTIONS else BRING_SECTIONS[0], from_query(query))


def bring_to_query(view: BringView) -> dict[str, str]:
    """Write a view as the address's parameters; :func:`bring_from_query` gives it back."""
    setting = to_query(view.merge) if view.section == "export" and view.merge.tasks else {}
    return {QUERY_SECTION: view.section, **setting}
