"""Real images: from installed packages, and from the user's folders, shards and data sets."""

from dealias.data.samples import Digits, digits_split, mnist_digits, photos
from dealias.data.sources import Source, open_source
from dealias.data.videos import Video

__all__ = ["Digits", "Source", "Video", "digits_split", "mnist_digits", "open_source", "photos"]
