"""Real images: those that travel inside packages, and folders of the user's own."""

from dealias.data.pictures import read_image
from dealias.data.samples import Digits, digits_split, mnist_digits, photos
from dealias.data.sources import Source, open_source

__all__ = [
    "Digits",
    "Source",
    "digits_split",
    "mnist_digits",
    "open_source",
    "photos",
    "read_image",
]
