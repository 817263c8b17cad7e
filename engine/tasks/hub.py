"""Data sets of the Hugging Face hub as the ``datasets`` library keeps them on this machine.

Nothing here reaches the network but ``fetch``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import CheckpointError, EngineError, MissingDataError, UsageError
from engine.tasks.files import PARTS
from engine.tasks.layout import RECORD, Files, checked
from engine.tasks.registry import Known
from engine.tasks.tables import columns_of, labels_of, of_columns, parquet_files, scan_parquet


def scan(known: Known) -> Files:
    """Look at what is on this machine of a data set, labels included.

    What the library has prepared comes first, then parquet files as they were downloaded.

    Args:
        known: Which data set, and what of it.

    Returns:
        The data set, checked.

    Raises:
        MissingDataError: If it is not on this machine; the message names the command.
        UsageError: If its columns, parts or labels cannot be used.
    """
    folder = _prepared(known)
    if folder is not None:
        return checked(_scan_prepared(known, folder))
    snapshot = _snapshot(known.hub)
    found = None if snapshot is None else _scan_snapshot(known, snapshot)
    if found is None:
        raise MissingDataError(absent(known))
    return checked(found)


def is_here(known: Known) -> bool:
    """Say whether a data set, or some of it, is on this machine; reads no data."""
    return _prepared(known) is not None or _snapshot(known.hub) is not None


def absent(known: Known) -> str:
    """Return the sentence that says where to get a data set."""
    import datasets.config

    return (
        f"{known.name} ({known.hub}) is not on this machine; where there is a network run "
        f"`python -m engine fetch {_reference(known)}`, or bring its folders in "
        f"{Path(datasets.config.HF_DATASETS_CACHE).parent} from a machine that has it"
    )


def fetch(known: Known) -> None:
    """Download and prepare a data set through the library, into its own cache.

    Raises:
        MissingDataError: If the hub cannot be reached or refuses.
    """
    import datasets

    try:
        datasets.load_dataset(known.hub, known.config)
    except Exception as error:  # network, hub and library raise almost anything
        reason = " ".join(str(error).split())[:200]
        raise MissingDataError(
            f"{known.hub} could not be fetched ({reason}); check the network, and the access if "
            "the data set asks for one (`hf auth login`), then run the command again"
        ) from error


def _reference(known: Known) -> str:
    """Return what a user types for a data set."""
    return known.name if known.published else known.source


def _prepared(known: Known) -> Path | None:
    """Return the newest folder that the library prepared of a data set.

    Raises:
        UsageError: If there are several configurations and none was named.
    """
    import datasets.config
    from datasets.naming import camelcase_to_snakecase

    owner, name = known.hub.split("/")
    root = Path(datasets.config.HF_DATASETS_CACHE).expanduser()
    root = root / f"{owner}___{camelcase_to_snakecase(name)}"
    found = [
        path.parent
        for path in root.glob(f"*/*/*/{RECORD}")
        if not path.parent.name.endswith(".incomplete") and not path.parent.name.startswith(".")
    ]
    configs = sorted({path.parts[-3] for path in found})
    if known.config is not None:
        found = [path for path in found if path.parts[-3] == known.config]
    elif len(configs) > 1 and "default" in configs:
        found = [path for path in found if path.parts[-3] == "default"]
    elif len(configs) > 1:
        raise UsageError(
            f"{known.hub} is here in the configurations {', '.join(configs[:5])}; name one, as "
            f"hub:{known.hub}:{configs[0]}"
        )
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _scan_prepared(known: Known, folder: Path) -> Files:
    """Return the data set in a folder that the library prepared.

    Raises:
        CheckpointError: If it cannot be read.
        EngineError: If it lacks the parts or columns meant.
    """
    import datasets
    from datasets.naming import filenames_for_dataset_split

    try:
        info = datasets.DatasetInfo.from_directory(str(folder))
        given = {str(name): split for name, split in (info.splits or {}).items()}
        chosen = _chosen(known, given)
        shards = {
            part: tuple(
                Path(file)
                for file in filenames_for_dataset_split(
                    str(folder),
                    given[name].dataset_name or info.dataset_name or known.hub.split("/")[1],
                    name,
                    "arrow",
                    given[name].shard_lengths,
                )
            )
            for part, name in chosen.items()
        }
        images, columns, names = known.images, {}, set()
        for part, files in shards.items():
            pieces = [datasets.Dataset.from_file(str(file)) for file in files]
            rows = datasets.concatenate_datasets(pieces)
            image, label = columns_of(known.hub, rows.features, images, known.labels)
            cells = rows.data.column(label).to_pylist()
            named, labels = labels_of(known.hub, rows.features[label], cells)
            columns[part] = (files, labels)
            names.add(named)
    except EngineError:
        raise
    except Exception as error:  # what is damaged can raise almost anything
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder} is damaged ({reason}); delete it and run `python -m engine fetch "
            f"{_reference(known)}` again"
        ) from error
    return of_columns(folder, "arrow", image, names.pop(), columns)


def _chosen(known: Known, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the data set's name of each of our parts that it has.

    Raises:
        UsageError: If there is no train, or a part that was named is not there.
    """
    lacking = [name for name in known.parts.values() if name not in given]
    if known.parts:
        chosen = dict(known.parts)
    else:
        usual = {part: [n for n in names if n in given] for part, names in PARTS.items()}
        chosen = {part: names[0] for part, names in usual.items() if names}
    if lacking or "train" not in chosen:
        raise UsageError(
            f"{known.hub} has the parts {', '.join(given)} and not "
            f"{', '.join(lacking) or 'train'}; name them in a task file, as "
            "`parts: {train: NAME, test: NAME}`"
        )
    return chosen


def _snapshot(hub: str) -> Path | None:
    """Return the folder of a data set's files as downloaded, if there is one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return None


def _scan_snapshot(known: Known, root: Path) -> Files | None:
    """Return the data set in downloaded parquet files; None where there are none of train."""
    parts = {part: (name,) for part, name in known.parts.items()} or PARTS
    for folders in _places(known, root):
        try:
            tables = parquet_files(root, folders, parts)
        except UsageError:  # files of other parts alone
            continue
        if tables:
            return scan_parquet(root, tables, known.images, known.labels)
    return None


def _places(known: Known, root: Path) -> Sequence[Sequence[Path]]:
    """Return where parquet files may lie, the likeliest first."""
    usual = [(root, root / "data")]
    if known.config is not None:
        return [(root / known.config, root / "data" / known.config), *usual]
    below = sorted(path for path in root.iterdir() if path.is_dir())
    return [*usual, *([below] if len(below) == 1 else [])]
