"""Real images: those that travel inside packages, and folders of the user's own."""

from dealias.data.folder import Folder, LoadedImages, Skipped, load_images, read_image
from dealias.data.preprocess import Preprocessing, preprocessing_for
from dealias.data.samples import Digits, digits_split, mnist_digits, photos
from dealias.data.sources import Source, open_source

__all__ = [
    "Digits",
    "Folder",
    "LoadedImages",
    "Preprocessing",
    "Skipped",
    "Source",
    "digits_split",
    "load_images",
    "mnist_digits",
    "open_source",
    "photos",
    "preprocessing_for",
    "read_image",
]
