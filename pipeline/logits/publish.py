"""Uploading a logit data set to the Hugging Face Hub."""

import logging
import re
from pathlib import Path

from pipeline.errors import InputError
from pipeline.logits import dataset, verify

logger = logging.getLogger(__name__)

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def publish(folder: Path, repository: str, private: bool = False, dry_run: bool = False) -> list[tuple[str, int]]:
    """Upload a logit data set as one commit, which also deletes its old shards. The data set is verified first.

    :param repository: OWNER/NAME, of the account of `hf auth login`. It is created if it does not exist.
    :param private: Whether a new repository is private.
    :param dry_run: Only list the files.
    :return: The files, and their sizes in bytes.
    :raises InputError: If the data set is damaged, or the Hub refuses.
    """
    if REPOSITORY.fullmatch(repository) is None:
        raise InputError(f"{repository!r}: must be OWNER/NAME")
    verify.refuse_damaged(folder)
    paths = ["README.md", "manifest.json", *(shard["path"] for shard in dataset.manifest(folder)["shards"])]
    files = [(path, (folder / path).stat().st_size) for path in paths]
    if dry_run:
        return files
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    about = dataset.provenance(folder)
    api = HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=paths,
            delete_patterns=["data/*.parquet"],
            commit_message=f"{about['task']}: text with the logits of {about['teacher']['name']}",
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(f"{repository}: upload failed: {' '.join(str(error).split())}") from error
    logger.info("published %d files at https://huggingface.co/datasets/%s", len(files), repository)
    return files
