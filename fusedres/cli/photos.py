"""Photographs: those that scikit-learn and scikit-image ship in their wheels, or the user's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageOps

from fusedres.cli.console import UserError

#: Package and path inside it. Only files of the wheels themselves: nothing here is downloaded.
SHIPPED = (
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/hubble_deep_field.jpg"),
)

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Photo:
    """One decoded photograph, in RGB and upright."""

    name: str
    image: Image.Image


def read_photo(path: Path) -> Photo:
    """Decode one file.

    Raises:
        UserError: it cannot be read; the message names the file and the reason.
    """
    try:
        with Image.open(path) as image:
            return Photo(path.stem, ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, zlib.error and more
        raise UserError(f"image {path} cannot be read: {error}") from error


def read_photos(paths: Iterable[Path]) -> tuple[list[Photo], list[str]]:
    """Every file that can be read, and a message for each that cannot. A folder stands for its images."""
    photos: list[Photo] = []
    failures: list[str] = []
    for path in expand(paths):
        try:
            photos.append(read_photo(path))
        except UserError as error:
            failures.append(str(error))
    return photos, failures


def expand(paths: Iterable[Path]) -> list[Path]:
    """``paths`` with each folder replaced by the image files in it, in the order of their names."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files.extend(p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES)
        else:
            files.append(path)
    return files


def shipped_photos() -> list[Photo]:
    """The photographs of :data:`SHIPPED` that the installed packages have.

    Raises:
        UserError: neither package is installed, or neither has any of the files.
    """
    paths = [folder / file for package, file in SHIPPED if (folder := _package_folder(package))]
    photos = [read_photo(path) for path in paths if path.is_file()]
    if not photos:
        raise UserError(
            "the photographs come with scikit-learn and scikit-image, and neither has them here: "
            "pip install 'fusedres[demo]', or give your own with --images"
        )
    return photos


def _package_folder(package: str) -> Path | None:
    # found without importing: scikit-learn's import alone takes a second, and only a file is wanted
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
