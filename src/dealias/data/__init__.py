"""Real images: those that travel inside packages, and folders of the user's own."""

from dealias.data.folder import Folder, LoadedImages, Skipped, load_images, read_image
from dealias.data.samples import Digits, digits_split, mnist_digits, photos

__all__ = [
    "Digits",
    "Folder",
    "LoadedImages",
    "Skipped",
    "digits_split",
    "load_images",
    "mnist_digits",
    "photos",
    "read_image",
]
